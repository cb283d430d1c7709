//! Rebuilds the index when it is not the one that the last rebuild left: Redis was restarted,
//! flushed, failed over or restored from an old dump, or the number of shards of the queue has
//! changed.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use shared::{
    queue::{
        QueueName,
        repair::reconcile::{Reconciler, Resharded},
    },
    telemetry::names,
};

use crate::{elector::Leading, maintainer::Service};

/// Longer than two renewals of a live holder (see `worker::lease::renewer`), so each can assert its
/// leases.
const GRACE: Duration = Duration::from_millis(1_200);

/// Keeps the index of every queue sound.
pub struct IndexKeeper {
    reconciler: Reconciler,
    queues: Vec<QueueName>,
    interval: Duration,
}

impl IndexKeeper {
    /// A keeper that runs every `interval`.
    pub const fn new(reconciler: Reconciler, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { reconciler, queues, interval }
    }

    async fn keep(&self, queue: &QueueName, leading: &Leading) -> anyhow::Result<u64> {
        if let Some(Resharded { from, to }) = self.reconciler.reshard(queue, &leading.term).await? {
            tracing::info!(%queue, from, to, "the number of shards of the queue has changed; rebuilding its index");
        }
        if self.reconciler.is_sound(queue).await? {
            return Ok(0);
        }
        let report = self.reconciler.rebuild(queue, &leading.term, GRACE).await?;
        tracing::info!(%queue, epoch = report.epoch, jobs = report.jobs, took_ms = report.took.as_millis(), "rebuilt the index from the ledger");
        metrics::histogram!(names::INDEX_REBUILD_SECONDS).record(report.took.as_secs_f64());
        Ok(report.jobs)
    }
}

impl Service for IndexKeeper {
    const NAME: &'static str = "index keeper";
    type Report = u64;

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, leading: &Leading) -> anyhow::Result<u64> {
        // Run all to completion: after an abandoned rebuild, workers have half an index until the
        // next one.
        let kept = join_all(
            self.queues
                .iter()
                .map(async |queue| self.keep(queue, leading).await.with_context(|| format!("queue {queue}"))),
        );
        kept.await.into_iter().sum()
    }
}
