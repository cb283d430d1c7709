//! Uploads: a file is spooled to disk first and imported afterwards, so that no shared resource
//! waits for a client.
//!
//! Invariant: a spooled file has no name in its directory, so it disappears with its last handle,
//! whether the request ends, is aborted, or the process dies. The number of uploads per tenant and
//! the bytes of all uploads are bounded. [`places`] counts, [`spool`] writes.

mod places;
mod spool;

use std::{path::PathBuf, sync::Arc};

use shared::{config::LimitsConfig, tenancy::TenantId};

use self::places::Places;
pub use self::{
    places::{TooMany, UploadPlace},
    spool::{SpoolError, Spooled},
};

/// Concurrent uploads of one tenant in this process.
pub const MAX_PER_TENANT: usize = 2;

/// The uploads of this process. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    directory: Arc<PathBuf>,
    places: Places,
}

impl Uploads {
    /// Creates a state without uploads.
    pub fn new(config: &LimitsConfig) -> Self {
        Self { directory: Arc::new(config.spool_dir.clone()), places: Places::new(MAX_PER_TENANT, config.spool_bytes) }
    }

    /// Admits one upload with its import, until the returned value is dropped.
    pub fn begin(&self, tenant: TenantId) -> Result<UploadPlace, TooMany> {
        self.places.take(tenant, Arc::clone(&self.directory))
    }
}
