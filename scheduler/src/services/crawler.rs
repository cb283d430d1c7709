//! Pushes to the index what the sweep missed: a row whose transaction stayed open for longer than
//! the sweep's lag, or a job whose change by another job's follow-up work did not reach the index.
//!
//! Walks over all waiting jobs again and again, one small page per run.

use std::time::Duration;

use shared::queue::{
    QueueName,
    repair::reconcile::{CrawlCursor, Reconciler},
};
use tokio::time::Instant;

use crate::{elector::Leading, maintainer::Service, rest::Rest};

/// Crawls all queues, one after the other.
pub struct Crawler {
    reconciler: Reconciler,
    queues: Vec<QueueName>,
    interval: Duration,
    cursor: CrawlCursor,
    /// Rows that died since the last vacuum can make a page slow.
    rest: Rest,
}

impl Crawler {
    /// A crawler that reads a page every `interval`.
    pub fn new(reconciler: Reconciler, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { reconciler, queues, interval, cursor: CrawlCursor::default(), rest: Rest::at_most(Duration::MAX) }
    }
}

impl Service for Crawler {
    const NAME: &'static str = "crawler";
    type Report = ();

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<()> {
        if !self.rest.is_over() {
            return Ok(());
        }
        let began = Instant::now();
        let crawled = self.reconciler.crawl(&self.queues, &mut self.cursor).await;
        self.rest.begin(began.elapsed());
        Ok(crawled?)
    }
}
