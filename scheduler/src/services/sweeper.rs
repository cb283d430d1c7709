//! Pushes jobs of the ledger that never reached the index: the API died between commit and push, or
//! Redis was unavailable.
//!
//! The sweep follows the newest rows at a short distance and reads each row once, a few seconds
//! after its insert.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use shared::{
    queue::{QueueName, repair::reconcile::Reconciler},
    telemetry::names,
};
use uuid::Uuid;

use crate::{elector::Leading, maintainer::Service};

/// Younger rows are left to the producer's push.
const LAG: Duration = Duration::from_secs(2);
/// Where a new leader starts, since it does not know its predecessor's position.
const LOOK_BACK: Duration = Duration::from_mins(10);

/// Sweeps all queues.
pub struct Sweeper {
    reconciler: Reconciler,
    queues: Vec<QueueName>,
    interval: Duration,
    term: Option<i64>,
    swept_to: HashMap<QueueName, Uuid>,
}

impl Sweeper {
    /// A sweeper that runs every `interval`.
    pub fn new(reconciler: Reconciler, queues: Vec<QueueName>, interval: Duration) -> Self {
        Self { reconciler, queues, interval, term: None, swept_to: HashMap::new() }
    }

    async fn begin_term(&mut self, term: i64) -> anyhow::Result<()> {
        if self.term != Some(term) {
            let cursor = self.reconciler.cursor_before(LOOK_BACK).await?;
            self.swept_to = self.queues.iter().map(|queue| (queue.clone(), cursor)).collect();
            self.term = Some(term);
        }
        Ok(())
    }
}

impl Service for Sweeper {
    const NAME: &'static str = "sweeper";
    type Report = u64;

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, leading: &Leading) -> anyhow::Result<u64> {
        self.begin_term(leading.term.number()).await?;
        let (mut seen, mut outcome) = (0, Ok(()));
        for queue in &self.queues {
            // A cursor moves only after the index has taken the rows.
            let cursor = self.swept_to.get(queue).copied().unwrap_or_default();
            match self.reconciler.sweep(queue, cursor, LAG).await {
                Ok((cursor, swept)) => {
                    self.swept_to.insert(queue.clone(), cursor);
                    seen += swept;
                }
                // An error in one queue does not stop the others.
                Err(error) => outcome = outcome.and(Err(error).with_context(|| format!("queue {queue}"))),
            }
        }
        metrics::counter!(names::INDEX_SWEPT_TOTAL).increment(seen);
        outcome.map(|()| seen)
    }
}
