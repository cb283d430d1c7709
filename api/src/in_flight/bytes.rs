//! Counts of the bytes in flight, and their limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::tenancy::TenantId;

use crate::{
    problem::{Problem, ProblemCode},
    tenant_counts::{Full, TenantCounts},
};

/// Limits on the bytes in flight.
#[derive(Clone, Copy, Debug)]
pub struct InFlightLimits {
    /// Per tenant in this process; default 32 MiB: 16 of the largest bodies at once.
    pub per_tenant: usize,
    /// For this process; default 256 MiB.
    pub per_process: usize,
}

impl Default for InFlightLimits {
    fn default() -> Self {
        Self { per_tenant: 32 << 20, per_process: 256 << 20 }
    }
}

/// Bytes in flight, per tenant and in total. Cheap to clone.
#[derive(Clone)]
pub struct InFlightBytes {
    counts: Arc<Mutex<TenantCounts>>,
    limits: InFlightLimits,
}

/// Counted bytes of one tenant, released on drop.
pub(super) struct Counted {
    bytes: usize,
    tenant: TenantId,
    counts: InFlightBytes,
}

impl InFlightBytes {
    /// Creates empty counts.
    pub fn new(limits: InFlightLimits) -> Self {
        Self { counts: Arc::default(), limits }
    }

    /// Counts bytes that are about to be read; fails at a limit.
    pub(super) fn reserve(&self, tenant: TenantId, bytes: usize) -> Result<Counted, Full> {
        let mut counted = Counted { bytes: 0, tenant, counts: self.clone() };
        counted.grow(bytes)?;
        Ok(counted)
    }

    /// Counts bytes that exist already, such as those of a response; the limits do not apply.
    pub(super) fn note(&self, tenant: TenantId, bytes: usize) -> Counted {
        self.counts().add(tenant, bytes);
        Counted { bytes, tenant, counts: self.clone() }
    }

    fn counts(&self) -> MutexGuard<'_, TenantCounts> {
        // A panic while the lock is held leaves the counts consistent.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Counts more bytes; fails at a limit.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        let InFlightLimits { per_tenant, per_process } = self.counts.limits;
        self.counts.counts().add_within(self.tenant, bytes, per_tenant, per_process)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.counts().remove(self.tenant, self.bytes);
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        match full {
            Full::Tenant => Self::new(ProblemCode::TooManyInFlight)
                .detail("the tenant's requests and responses in flight have reached their limit of bytes"),
            Full::Process => Self::new(ProblemCode::Unavailable),
        }
        .retry_after(1)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn both_limits_are_exact_and_dropped_reservations_are_released() {
        let bytes = InFlightBytes::new(InFlightLimits { per_tenant: 10, per_process: 15 });
        let first = bytes.reserve(tenant(1), 10).ok();
        assert!(first.is_some());
        assert_eq!(bytes.reserve(tenant(1), 1).err(), Some(Full::Tenant));
        let second = bytes.reserve(tenant(2), 5).ok();
        assert!(second.is_some());
        assert_eq!(bytes.reserve(tenant(2), 1).err(), Some(Full::Process));
        drop((first, second));
        assert_eq!(bytes.counts().total(), 0);
        assert!(bytes.reserve(tenant(1), 10).is_ok());
    }

    #[test]
    fn a_response_of_any_size_counts_and_blocks_further_reservations() {
        let bytes = InFlightBytes::new(InFlightLimits { per_tenant: 10, per_process: 100 });
        let answer = bytes.note(tenant(1), 11);
        assert_eq!(bytes.reserve(tenant(1), 0).err(), Some(Full::Tenant));
        assert!(bytes.reserve(tenant(2), 10).is_ok());
        drop(answer);
        assert!(bytes.reserve(tenant(1), 10).is_ok());
    }
}
