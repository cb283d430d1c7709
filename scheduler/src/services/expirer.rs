//! Discards jobs that expired before a worker started them.

use std::time::Duration;

use shared::{
    db::SystemDb,
    queue::{Index, repair::expiry},
};

use crate::{elector::Leading, maintainer::Service};

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks for expired jobs.
pub struct Expirer {
    db: SystemDb,
    index: Index,
}

impl Expirer {
    /// An expirer over both stores.
    pub const fn new(db: SystemDb, index: Index) -> Self {
        Self { db, index }
    }
}

impl Service for Expirer {
    const NAME: &'static str = "expirer";
    type Report = u64;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<u64> {
        Ok(expiry::sweep(&self.db, &self.index).await?)
    }
}
