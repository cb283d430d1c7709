//! Forgetting finished months, each as a whole, by dropping its partition.
//!
//! Apart from the [`super::Cleaner`]: whether anything in a month is still needed may take a reading of all of it, which neither delays
//! the small deletes nor ends them when it takes too long.

use std::time::Duration;

use shared::{db::SystemDb, queue::retention};

use crate::{elector::Leading, maintainer::Service};

/// Often enough for something that becomes possible once a month.
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
            tracing::info!(months = dropped.join(" "), "months of finished jobs were dropped");
        }
        Ok(dropped)
    }
}
