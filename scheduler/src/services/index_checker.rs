//! Checks the invariants of the index, every minute by default, repairs violations and counts them.

use std::time::Duration;

use anyhow::Context as _;
use shared::{
    queue::{
        QueueName,
        repair::check::{Checker, Extent, Invariant, Violation},
    },
    telemetry::names,
};

use strum::IntoEnumIterator as _;

use crate::{elector::Leading, maintainer::Service};

/// Most violations that one run logs separately.
const LOGGED: usize = 10;

/// Checks all queues, one after the other.
pub struct IndexChecker {
    checker: Checker,
    queues: Vec<QueueName>,
    interval: Duration,
}

impl IndexChecker {
    /// A checker that runs every `interval`.
    pub fn new(checker: Checker, queues: Vec<QueueName>, interval: Duration) -> Self {
        // An alert on a counter needs its initial zero.
        for invariant in Invariant::iter() {
            metrics::counter!(names::INDEX_DRIFT_TOTAL, "invariant" => invariant.name()).increment(0);
        }
        Self { checker, queues, interval }
    }
}

impl Service for IndexChecker {
    const NAME: &'static str = "index checker";
    type Report = usize;

    fn interval(&self) -> Duration {
        self.interval
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<usize> {
        let (mut drift, mut outcome) = (Vec::new(), Ok(()));
        for queue in &self.queues {
            match self.checker.check(queue, Extent::Sample, true).await {
                Ok(found) => drift.extend(found.into_iter().filter(is_drift)),
                // An error in one queue does not stop the others.
                Err(error) => outcome = outcome.and(Err(error).with_context(|| format!("queue {queue}"))),
            }
        }
        for violation in &drift {
            metrics::counter!(names::INDEX_DRIFT_TOTAL, "invariant" => violation.invariant.name()).increment(1);
        }
        for violation in drift.iter().take(LOGGED) {
            tracing::warn!(%violation, all = drift.len(), "repaired a violation of an index invariant");
        }
        outcome.map(|()| drift.len())
    }
}

/// An index that is not built yet is left to the index keeper.
fn is_drift(violation: &Violation) -> bool {
    violation.invariant != Invariant::NotReady
}
