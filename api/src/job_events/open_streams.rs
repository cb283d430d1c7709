//! Stream limits: open streams per tenant and in the process.
//!
//! Invariant: a stream is counted until its [`StreamPermit`] is dropped, and neither count exceeds its
//! limit, so one tenant cannot take the connections of the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{telemetry::names, tenancy::TenantId};
use tokio_util::sync::CancellationToken;

/// Gauges are dropped when they are not set for a minute.
const REPORT: Duration = Duration::from_secs(5);

/// The counts. Cheap to clone.
#[derive(Clone)]
pub(super) struct OpenStreams {
    taken: Arc<Mutex<Taken>>,
    per_tenant: usize,
    per_process: usize,
}

#[derive(Default)]
struct Taken {
    by_tenant: HashMap<TenantId, usize>,
    total: usize,
}

/// The permit of one open stream.
pub struct StreamPermit {
    tenant: TenantId,
    open_streams: OpenStreams,
}

/// The stream limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit per tenant.
    Tenant,
    /// The limit of the process.
    Process,
}

impl OpenStreams {
    pub(super) fn new(per_tenant: usize, per_process: usize) -> Self {
        Self { taken: Arc::default(), per_tenant, per_process }
    }

    pub(super) fn take(&self, tenant: TenantId) -> Result<StreamPermit, Full> {
        let mut taken = self.taken();
        let own = taken.by_tenant.get(&tenant).copied().unwrap_or(0);
        if own >= self.per_tenant {
            return Err(Full::Tenant);
        }
        if taken.total >= self.per_process {
            return Err(Full::Process);
        }
        taken.by_tenant.insert(tenant, own + 1);
        taken.total += 1;
        Ok(StreamPermit { tenant, open_streams: self.clone() })
    }

    /// Reports the number of streams as a gauge until `stop`.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 streams")]
    pub(super) async fn report(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REPORT);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            metrics::gauge!(names::EVENT_STREAMS).set(self.taken().total as f64);
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut taken = self.open_streams.taken();
        taken.total -= 1;
        if let Some(own) = taken.by_tenant.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
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
    fn both_limits_hold_and_a_closed_stream_frees_its_permit() {
        let open_streams = OpenStreams::new(2, 3);
        let first = open_streams.take(tenant(1)).ok();
        let _second = open_streams.take(tenant(1)).ok();
        assert_eq!(open_streams.take(tenant(1)).err(), Some(Full::Tenant));
        let third = open_streams.take(tenant(2)).ok();
        assert!(first.is_some() && third.is_some());
        assert_eq!(open_streams.take(tenant(2)).err(), Some(Full::Process));
        drop(first);
        let _again = open_streams.take(tenant(1)).ok();
        assert_eq!(open_streams.take(tenant(1)).err(), Some(Full::Tenant), "the released permit is taken again");
        drop(third);
        assert!(!open_streams.taken().by_tenant.contains_key(&tenant(2)));
    }
}
