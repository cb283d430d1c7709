//! Deletes finished months by dropping their partitions.
//!
//! Separate from [`super::Cleaner`]: finding out whether a month is still needed may require
//! reading all of it, which must neither delay the small deletes nor stop them on a timeout.

use std::time::Duration;

use shared::{db::SystemDb, queue::ledger::retention};

use crate::{elector::Leading, maintainer::Service};

/// Frequent enough, since a month becomes droppable only once a month.
const INTERVAL: Duration = Duration::from_mins(30);

/// Drops months older than their retention.
pub struct MonthDropper {
    db: SystemDb,
    keep_jobs: Duration,
}

impl MonthDropper {
    /// A dropper that keeps finished jobs for `keep_jobs`.
    pub const fn new(db: SystemDb, keep_jobs: Duration) -> Self {
        Self { db, keep_jobs }
    }
}

impl Service for MonthDropper {
    const NAME: &'static str = "month dropper";
    type Report = Vec<String>;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<Vec<String>> {
        let dropped = retention::drop_months(&self.db, self.keep_jobs).await?;
        if !dropped.is_empty() {
            tracing::info!(months = dropped.join(" "), "dropped months of finished jobs");
        }
        Ok(dropped)
    }
}
