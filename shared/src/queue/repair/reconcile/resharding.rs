//! Changes the number of shards of a queue.
//!
//! Invariant: the shards of the previous count lease nothing once the new count is recorded, and
//! only then the new shards are built, as after a loss of Redis. Each step may be repeated: if a
//! leader dies between two steps, the next one resumes at the first incomplete step. Jobs dropped
//! from the index meanwhile are in the ledger.

use super::{ReconcileError, Reconciler};
use crate::{
    faults::{self, Point},
    leadership::Term,
    queue::QueueName,
};

/// A queue's shard count has changed; its index is not built yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resharded {
    /// Shards before.
    pub from: u16,
    /// Shards after.
    pub to: u16,
}

impl Reconciler {
    /// Applies this process's configured shard count to the queue, if a leader recorded a different
    /// one.
    pub async fn reshard(&self, queue: &QueueName, term: &Term) -> Result<Option<Resharded>, ReconcileError> {
        let (built, to) = (self.index.built_shards(queue).await?, self.index.shard_count(queue));
        if built == Some(to) {
            return Ok(None);
        }
        // No count is recorded after a loss of Redis, or by a leader of a release without shards:
        // then there is one shard, or none.
        let from = built.unwrap_or(1);
        if from == to {
            self.index.note_shards(queue, to).await?;
            return Ok(None);
        }
        let epoch = self.next_epoch(queue, term).await?;
        if !self.index.retire(queue, from, epoch).await? {
            return Err(ReconcileError::Overtaken);
        }
        faults::reach(Point::ReshardAfterRetire).await?;
        self.index.note_shards(queue, to).await?;
        faults::reach(Point::ReshardAfterNote).await?;
        Ok(built.map(|from| Resharded { from, to }))
    }
}
