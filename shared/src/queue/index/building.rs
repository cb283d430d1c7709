//! Building a queue's index anew: empty it, open it, call it complete. And giving it up, when the queue is split otherwise.
//!
//! Invariant: each step carries the epoch of its rebuild, and a later epoch refuses it, in every shard for itself.

use redis::RedisError;

use super::{Index, scripts};
use crate::queue::{QueueName, Shard, keys};

const LANES_CLEARED_PER_CALL: usize = 500;

impl Index {
    /// Empties a queue's index and opens the grace; `false` if a leader of a later epoch was here.
    pub(in crate::queue) async fn clear(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        for shard in self.shards(queue) {
            if !self.clear_shard(&shard, epoch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Empties what a queue split into `of` was, and has nothing handed out from it any more; `false` if a leader of a later epoch was
    /// here. The epoch stays behind, so that an earlier leader who wakes up late is refused.
    pub(in crate::queue) async fn retire(&self, queue: &QueueName, of: u16, epoch: i64) -> Result<bool, RedisError> {
        for shard in Shard::all(queue, of) {
            if !self.clear_shard(&shard, epoch).await? || !self.advance_shard(&shard, epoch, "state", "retired").await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Into how many shards a leader has split the queue, if one said so since Redis was lost.
    pub(in crate::queue) async fn built_shards(&self, queue: &QueueName) -> Result<Option<u16>, RedisError> {
        let key = keys::built_shards(self.prefix(), queue);
        redis::cmd("GET").arg(key).query_async(&mut self.connection()).await
    }

    /// Says into how many shards the queue is split from now on.
    pub(in crate::queue) async fn note_shards(&self, queue: &QueueName, count: u16) -> Result<(), RedisError> {
        let key = keys::built_shards(self.prefix(), queue);
        redis::cmd("SET").arg(key).arg(count).query_async(&mut self.connection()).await
    }

    async fn clear_shard(&self, shard: &Shard, epoch: i64) -> Result<bool, RedisError> {
        loop {
            let mut call = self.call(&scripts::CLEAR, shard);
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
        for shard in self.shards(queue) {
            if !self.advance_shard(&shard, epoch, field, value).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn advance_shard(&self, shard: &Shard, epoch: i64, field: &str, value: &str) -> Result<bool, RedisError> {
        let mut call = self.call(&scripts::ADVANCE, shard);
        call.arg(epoch).arg(field).arg(value).invoke_async(&mut self.connection()).await
    }
}
