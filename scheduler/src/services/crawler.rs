//! Bringing into the index what the sweep passed by: a row whose transaction stayed open for longer than the sweep's lag, or a job whose
//! index was not told of what another's end meant for it.
//!
//! Walks over everything that waits, again and again, one small page a round.

use std::time::Duration;

use shared::queue::{
    QueueName,
    reconcile::{CrawlCursor, Reconciler},
};

use crate::{elector::Leading, maintainer::Service};

/// Crawls over all queues, one after the other.
pub struct Crawler {
    reconciler: Reconciler,
    queues: Vec<QueueName>,
    interval: Duration,
    cursor: Option<CrawlCursor>,
}

impl Crawler {
    /// A crawler that reads a page every `interval`.
    pub const fn new(reconciler: Reconciler, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { reconciler, queues, interval, cursor: None }
    }
}

impl Service for Crawler {
    const NAME: &'static str = "crawler";
    type Report = ();

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<()> {
        self.cursor = self.reconciler.crawl(&self.queues, self.cursor.clone()).await?;
        Ok(())
    }
}
