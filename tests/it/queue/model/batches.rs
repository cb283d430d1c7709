//! The model of batches: the jobs that must end before the completion job may run.
//!
//! Invariant: a finished batch never changes; until it is finished, a redriven job has to end
//! again.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Batch {
    pub total: usize,
    pub pending: BTreeSet<Uuid>,
    pub finished: bool,
    members: BTreeSet<Uuid>,
}

#[derive(Debug, Default)]
pub struct Batches(pub BTreeMap<Uuid, Batch>);

impl Batches {
    pub fn join(&mut self, batch: Uuid, job: Uuid) {
        let batch = self.0.entry(batch).or_default();
        batch.total += 1;
        batch.pending.insert(job);
        batch.members.insert(job);
    }

    /// A batch with all jobs refused does not exist.
    pub fn has(&self, batch: Uuid) -> bool {
        self.0.contains_key(&batch)
    }

    pub fn count_end(&mut self, job: Uuid) {
        for batch in self.0.values_mut().filter(|batch| !batch.finished) {
            batch.pending.remove(&job);
        }
    }

    pub fn count_redrive(&mut self, job: Uuid) {
        for batch in self.0.values_mut().filter(|batch| !batch.finished && batch.members.contains(&job)) {
            batch.pending.insert(job);
        }
    }

    pub fn is_over(&self, batch: Uuid) -> bool {
        self.0.get(&batch).is_some_and(|batch| batch.pending.is_empty())
    }

    pub fn close(&mut self) {
        for batch in self.0.values_mut() {
            batch.finished |= batch.pending.is_empty();
        }
    }
}
