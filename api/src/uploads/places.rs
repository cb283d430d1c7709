//! Counts of the uploads and of their bytes on disk.
//!
//! Invariant: an upload and its bytes are counted until its [`UploadPlace`] is dropped.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::tenancy::TenantId;

use crate::tenant_counts::TenantCounts;

/// The counts. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    per_tenant: usize,
    max_bytes: u64,
}

#[derive(Default)]
struct Taken {
    uploads: TenantCounts,
    bytes: u64,
}

/// The tenant has reached its limit of concurrent uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} uploads of the tenant are in progress, which is the limit")]
pub struct TooMany {
    /// The limit that was reached.
    pub limit: usize,
}

/// The permit of one upload.
pub struct UploadPlace {
    pub(super) directory: Arc<PathBuf>,
    tenant: TenantId,
    places: Places,
    bytes: u64,
}

impl Places {
    pub(super) fn new(per_tenant: usize, max_bytes: u64) -> Self {
        Self { taken: Arc::default(), per_tenant, max_bytes }
    }

    pub(super) fn take(&self, tenant: TenantId, directory: Arc<PathBuf>) -> Result<UploadPlace, TooMany> {
        // The bytes of all uploads are limited instead of their number.
        let added = self.taken().uploads.add_within(tenant, 1, self.per_tenant, usize::MAX);
        added.map_err(|_| TooMany { limit: self.per_tenant })?;
        Ok(UploadPlace { directory, tenant, places: self.clone(), bytes: 0 })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic while the lock is held leaves the counts consistent.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadPlace {
    /// Counts bytes that are about to be written; `false` if the uploads of all tenants have
    /// reached their limit.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let mut taken = self.places.taken();
        let fits = taken.bytes + bytes <= self.places.max_bytes;
        if fits {
            taken.bytes += bytes;
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for UploadPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.bytes -= self.bytes;
        taken.uploads.remove(self.tenant, 1);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn take(places: &Places, tenant: u128) -> Result<UploadPlace, TooMany> {
        places.take(TenantId::new(Uuid::from_u128(tenant)), Arc::default())
    }

    #[test]
    fn uploads_are_limited_per_tenant_and_bytes_in_total() {
        let places = Places::new(2, 10);
        let mut first = take(&places, 1).ok();
        let _second = take(&places, 1).ok();
        assert_eq!(take(&places, 1).err(), Some(TooMany { limit: 2 }));
        let mut other = take(&places, 2).ok();
        assert!(first.as_mut().is_some_and(|place| place.grow(4)));
        assert!(other.as_mut().is_some_and(|place| place.grow(6) && !place.grow(1)));
        drop(first);
        assert!(other.as_mut().is_some_and(|place| place.grow(4) && !place.grow(1)));
        assert!(take(&places, 1).is_ok(), "the released permit is free");
        drop(other);
        let taken = places.taken();
        assert_eq!((taken.bytes, taken.uploads.total()), (0, 1));
    }
}
