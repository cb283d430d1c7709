//! Uploads: a file is spooled to the disk first and imported then, so that nothing shared waits for a client.
//!
//! Invariant: a spooled file has no name in its directory, so it is gone with the last handle to it, whether the request ends, is
//! aborted, or the process dies. How many uploads a tenant has and how many bytes all have are bounded. [`places`] counts, [`spool`]
//! writes.

mod places;
mod spool;

use std::{path::PathBuf, sync::Arc};

use shared::{config::LimitsConfig, tenancy::TenantId};

use self::places::Places;
pub use self::{
    places::{TooMany, UploadPlace},
    spool::{SpoolError, Spooled},
};

/// Uploads of one tenant at a time, in this process.
pub const MAX_PER_TENANT: usize = 2;

/// The uploads of this process. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    directory: Arc<PathBuf>,
    places: Places,
}

impl Uploads {
    /// None yet.
    pub fn new(config: &LimitsConfig) -> Self {
        Self { directory: Arc::new(config.spool_dir.clone()), places: Places::new(MAX_PER_TENANT, config.spool_bytes) }
    }

    /// The place of one upload and its import, until it is dropped.
    pub fn begin(&self, tenant: TenantId) -> Result<UploadPlace, TooMany> {
        self.places.take(tenant, Arc::clone(&self.directory))
    }
}
