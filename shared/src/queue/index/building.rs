//! Building a queue's index anew: empty it, open it, call it complete.
//!
//! Invariant: each step carries the epoch of its rebuild, and a later epoch refuses it.

use redis::RedisError;

use super::{Index, scripts};
use crate::queue::QueueName;

const LANES_CLEARED_PER_CALL: usize = 500;

impl Index {
    /// Empties a queue's index and opens the grace; `false` if a leader of a later epoch was here.
    pub(in crate::queue) async fn clear(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        loop {
            let mut call = self.call(&scripts::CLEAR, queue);
            let answer: String =
                call.arg(epoch).arg(LANES_CLEARED_PER_CALL).invoke_async(&mut self.connection()).await?;
            match answer.as_str() {
                "more" => {}
                "cleared" => return Ok(true),
                _ => return Ok(false),
            }
        }
    }

    /// Ends the grace of a rebuild: workers may fetch. `false` if the rebuild was overtaken.
    pub(in crate::queue) async fn open_for_fetching(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        self.advance(queue, epoch, "state", "ready").await
    }

    /// Notes that every page of the ledger has been pushed. `false` if the rebuild was overtaken.
    pub(in crate::queue) async fn mark_complete(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        self.advance(queue, epoch, "complete", "1").await
    }

    async fn advance(&self, queue: &QueueName, epoch: i64, field: &str, value: &str) -> Result<bool, RedisError> {
        let mut call = self.call(&scripts::ADVANCE, queue);
        call.arg(epoch).arg(field).arg(value).invoke_async(&mut self.connection()).await
    }
}
