//! Bringing into the index what the sweep passed by: a row whose transaction stayed open for longer than the sweep's lag, or a job whose
//! index was not told of what another's end meant for it.
//!
//! Walks over everything that waits, again and again, one small page a round.

use std::time::{Duration, Instant};

use shared::queue::{
    QueueName,
    reconcile::{CrawlCursor, Reconciler},
};

use crate::{elector::Leading, maintainer::Service};

/// A page takes at most one of so many parts of the time: what died since the last vacuum can make it slow.
const REST: u32 = 20;

/// Crawls over all queues, one after the other.
pub struct Crawler {
    reconciler: Reconciler,
    queues: Vec<QueueName>,
    interval: Duration,
    cursor: Option<CrawlCursor>,
    rests_until: Option<Instant>,
}

impl Crawler {
    /// A crawler that reads a page every `interval`.
    pub const fn new(reconciler: Reconciler, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { reconciler, queues, interval, cursor: None, rests_until: None }
    }
}

impl Service for Crawler {
    const NAME: &'static str = "crawler";
    type Report = ();

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<()> {
        let began = Instant::now();
        if self.rests_until.is_some_and(|until| began < until) {
            return Ok(());
        }
        self.cursor = self.reconciler.crawl(&self.queues, self.cursor.clone()).await?;
        self.rests_until = Some(began + began.elapsed() * REST);
        Ok(())
    }
}
