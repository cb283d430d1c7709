//! Splitting a queue into another number of shards.
//!
//! Invariant: nothing is handed out of shards of the old number before the new number is noted, and the new shards are built, as after
//! a loss of Redis, only then. Each step may be repeated, so a leader that ends between two of them is followed by one that begins
//! with the first that is not done. What the index forgets meanwhile the ledger knows.

use super::{ReconcileError, Reconciler};
use crate::{
    faults::{self, Point},
    leadership::Term,
    queue::QueueName,
};

/// A queue is split otherwise now; its index is not built yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resharded {
    /// Shards before.
    pub from: u16,
    /// Shards now.
    pub to: u16,
}

impl Reconciler {
    /// Has the queue split as this process's configuration says, if a leader split it otherwise before.
    pub async fn reshard(&self, queue: &QueueName, term: &Term) -> Result<Option<Resharded>, ReconcileError> {
        let (built, to) = (self.index.built_shards(queue).await?, self.index.shard_count(queue));
        if built == Some(to) {
            return Ok(None);
        }
        // Nobody says so after a loss of Redis, or where the last leader knew nothing of shards: then there is one, or none.
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
