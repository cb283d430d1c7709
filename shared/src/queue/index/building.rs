//! Rebuilding a queue's index: clear it, open it for fetching, mark it complete. Also retiring its
//! shards when the shard count changes.
//!
//! Invariant: each step carries the epoch of its rebuild, and every shard refuses a step of an
//! earlier epoch than its own.

use redis::RedisError;

use super::{Index, scripts};
use crate::queue::{QueueName, Shard, index::keys};

const FLOWS_CLEARED_PER_CALL: usize = 500;

impl Index {
    /// Empties a queue's index and opens the grace; `false` if a leader of a later epoch has
    /// already done so.
    pub(in crate::queue) async fn clear(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        for shard in self.shards(queue) {
            if !self.clear_shard(&shard, epoch).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Empties the shards of a queue split into `of` and retires them, so that they lease nothing;
    /// `false` if a leader of a later epoch has already done so. The epoch remains, so that an
    /// earlier leader that resumes late is refused.
    pub(in crate::queue) async fn retire(&self, queue: &QueueName, of: u16, epoch: i64) -> Result<bool, RedisError> {
        for shard in Shard::all(queue, of) {
            if !self.clear_shard(&shard, epoch).await? || !self.advance_shard(&shard, epoch, "state", "retired").await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Shard count that a leader recorded for the queue since the last loss of Redis.
    pub(in crate::queue) async fn built_shards(&self, queue: &QueueName) -> Result<Option<u16>, RedisError> {
        let key = keys::built_shards(self.prefix(), queue);
        redis::cmd("GET").arg(key).query_async(&mut self.connection()).await
    }

    /// Records the queue's shard count.
    pub(in crate::queue) async fn note_shards(&self, queue: &QueueName, count: u16) -> Result<(), RedisError> {
        let key = keys::built_shards(self.prefix(), queue);
        redis::cmd("SET").arg(key).arg(count).query_async(&mut self.connection()).await
    }

    async fn clear_shard(&self, shard: &Shard, epoch: i64) -> Result<bool, RedisError> {
        loop {
            let mut call = self.call(&scripts::CLEAR, shard);
            let answer: String =
                call.arg(epoch).arg(FLOWS_CLEARED_PER_CALL).invoke_async(&mut self.connection()).await?;
            match answer.as_str() {
                "more" => {}
                "cleared" => return Ok(true),
                _ => return Ok(false),
            }
        }
    }

    /// Ends the grace of a rebuild: workers may fetch. `false` if a later rebuild has begun or
    /// Redis was lost.
    pub(in crate::queue) async fn open_for_fetching(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        self.advance(queue, epoch, "state", "ready").await
    }

    /// Records that every page of the ledger has been pushed. `false` if a later rebuild has begun
    /// or Redis was lost.
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
