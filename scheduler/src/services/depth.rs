//! Exporting how much waits, from one process, so that sums over processes are right.

use std::time::Duration;

use shared::{
    clock::Clock,
    db::SystemDb,
    queue::{Index, QueueName, inspect},
    telemetry::names,
};

use crate::{elector::Leading, maintainer::Service};

const INTERVAL: Duration = Duration::from_secs(5);

/// Sets the gauges of queue depth and age.
pub struct Depth {
    db: SystemDb,
    index: Index,
    queues: Vec<QueueName>,
    clock: Clock,
}

impl Depth {
    /// A meter over these queues.
    pub const fn new(db: SystemDb, index: Index, queues: Vec<QueueName>, clock: Clock) -> Self {
        Self { db, index, queues, clock }
    }

    async fn measure(&self, queue: &QueueName) -> anyhow::Result<()> {
        let (status, depth) = (self.index.status(queue).await?, self.index.depth(queue).await?);
        let waiting = inspect::count_not_due(&self.db, queue).await?;
        for (state, count) in [
            ("available", depth.available),
            ("running", status.leased),
            ("scheduled", waiting.scheduled),
            ("retryable", waiting.retryable),
        ] {
            gauge(names::QUEUE_DEPTH, &[("queue", queue.as_ref()), ("state", state)], count);
        }
        let age_ms = depth.oldest_run_at_ms.map_or(0, |oldest| (self.clock.now_ms() - oldest).max(0));
        metrics::gauge!(names::QUEUE_OLDEST_AGE_SECONDS, "queue" => queue.to_string())
            .set(Duration::from_millis(age_ms.unsigned_abs()).as_secs_f64());
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^52 do not occur")]
fn gauge(name: &'static str, labels: &[(&'static str, &str)], value: u64) {
    let labels: Vec<_> = labels.iter().map(|(key, value)| metrics::Label::new(*key, (*value).to_owned())).collect();
    metrics::gauge!(name, labels).set(value as f64);
}

impl Service for Depth {
    const NAME: &'static str = "depth";
    type Report = ();

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<()> {
        for queue in &self.queues {
            self.measure(queue).await?;
        }
        Ok(())
    }
}
