//! Deletes finished work after its retention, in small statements. [`super::MonthDropper`] drops
//! whole months.

use std::time::Duration;

use shared::{
    db::SystemDb,
    queue::ledger::retention::{self, RetentionReport},
};

use crate::{elector::Leading, maintainer::Service};

const INTERVAL: Duration = Duration::from_mins(1);

/// Deletes rows older than their retention.
pub struct Cleaner {
    db: SystemDb,
    keep_jobs: Duration,
}

impl Cleaner {
    /// A cleaner that keeps finished jobs for `keep_jobs`.
    pub const fn new(db: SystemDb, keep_jobs: Duration) -> Self {
        Self { db, keep_jobs }
    }
}

impl Service for Cleaner {
    const NAME: &'static str = "cleaner";
    type Report = RetentionReport;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<RetentionReport> {
        Ok(retention::clean(&self.db, self.keep_jobs).await?)
    }
}
