//! Exports queue depth and age from one process, so that sums over processes are correct.

use std::time::Duration;

use anyhow::Context as _;
use shared::{
    clock::Clock,
    db::SystemDb,
    queue::{Index, QueueName, observe::inspect},
    telemetry::names,
};
use tokio::time::Instant;

use crate::{elector::Leading, maintainer::Service, rest::Rest};

const INTERVAL: Duration = Duration::from_secs(5);
/// Also bounds the pause after a count that ran into its timeout.
const LONGEST_REST: Duration = Duration::from_mins(5);

/// Sets the gauges of queue depth and age.
pub struct Depth {
    db: SystemDb,
    index: Index,
    queues: Vec<QueueName>,
    clock: Clock,
    /// Counting jobs that are not due takes longer the more there are.
    rest: Rest,
}

impl Depth {
    /// A meter over these queues.
    pub fn new(db: SystemDb, index: Index, queues: Vec<QueueName>, clock: Clock) -> Self {
        Self { db, index, queues, clock, rest: Rest::at_most(LONGEST_REST) }
    }

    /// Counts jobs that are not due, which only the ledger knows. The gauges keep their values
    /// between counts.
    async fn count(&mut self) -> anyhow::Result<()> {
        if !self.rest.is_over() {
            return Ok(());
        }
        let began = Instant::now();
        let counted = inspect::count_not_due(&self.db).await;
        self.rest.begin(began.elapsed());
        let counted = counted.context("counting jobs that are not due")?;
        for queue in &self.queues {
            let not_due = counted.get(queue).copied().unwrap_or_default();
            gauge(queue, "scheduled", not_due.scheduled);
            gauge(queue, "retryable", not_due.retryable);
        }
        Ok(())
    }

    /// Sets the gauges that come from the index.
    async fn measure(&self, queue: &QueueName) -> anyhow::Result<()> {
        let (status, depth) = (self.index.status(queue).await?, self.index.depth(queue).await?);
        gauge(queue, "available", depth.available);
        gauge(queue, "running", status.leased);
        let age_ms = depth.oldest_run_at_ms.map_or(0, |oldest| (self.clock.now_ms() - oldest).max(0));
        metrics::gauge!(names::QUEUE_OLDEST_AGE_SECONDS, "queue" => queue.to_string())
            .set(Duration::from_millis(age_ms.unsigned_abs()).as_secs_f64());
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^52 do not occur")]
fn gauge(queue: &QueueName, state: &'static str, jobs: u64) {
    metrics::gauge!(names::QUEUE_DEPTH, "queue" => queue.to_string(), "state" => state).set(jobs as f64);
}

impl Service for Depth {
    const NAME: &'static str = "depth";
    type Report = ();

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<()> {
        let mut outcome = self.count().await;
        for queue in &self.queues {
            outcome = outcome.and(self.measure(queue).await.with_context(|| format!("queue {queue}")));
        }
        outcome
    }
}
