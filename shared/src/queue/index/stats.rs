//! Reads the index without changing it.
//!
//! Invariant: a result is a hint, stale as soon as it is read; callers check the ledger before they
//! act on it.

use redis::RedisError;
use uuid::Uuid;

use super::{
    Index, MAX_BATCH, WORKER_SILENCE, millis, scripts,
    status::{FlowDepth, IndexState, IndexStatus},
};
use crate::queue::lease::LeaseToken;
use crate::{
    queue::{QueueName, Shard, index::keys},
    tenancy::TenantId,
};

impl Index {
    /// Returns once Redis responds.
    pub async fn ping(&self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(&mut self.connection()).await
    }

    /// Status of a queue, all its shards combined.
    pub async fn status(&self, queue: &QueueName) -> Result<IndexStatus, RedisError> {
        let mut whole: Option<IndexStatus> = None;
        for shard in self.shards(queue) {
            let status = self.shard_status(&shard).await?;
            whole = Some(whole.map_or(status, |others| others.beside(status)));
        }
        Ok(whole.expect("a queue has at least one shard"))
    }

    /// Status of one shard.
    pub(in crate::queue) async fn shard_status(&self, shard: &Shard) -> Result<IndexStatus, RedisError> {
        let mut call = self.call(&scripts::STATUS, shard);
        let answer = call.arg(millis(WORKER_SILENCE)).invoke_async(&mut self.connection()).await?;
        let (state, epoch, complete, tenants_waiting, due, leased, tenants_throttled, paused, workers, slots): (
            String,
            i64,
            i64,
            u64,
            u64,
            u64,
            u64,
            i64,
            u64,
            u64,
        ) = answer;
        Ok(IndexStatus {
            state: IndexState::parse(&state),
            epoch,
            complete: complete == 1,
            tenants_waiting,
            due,
            leased,
            tenants_throttled,
            paused: paused == 1,
            workers,
            slots,
        })
    }

    /// Counts the jobs in flows, a bounded number of tenants per call.
    pub async fn depth(&self, queue: &QueueName) -> Result<FlowDepth, RedisError> {
        let mut whole = FlowDepth::default();
        for shard in self.shards(queue) {
            whole = whole.beside(self.shard_depth(&shard).await?);
        }
        Ok(whole)
    }

    async fn shard_depth(&self, shard: &Shard) -> Result<FlowDepth, RedisError> {
        let mut depth = FlowDepth::default();
        for tenants in ["active", "throttled"] {
            let mut from = 0;
            loop {
                let mut call = self.call(&scripts::DEPTH, shard);
                call.arg(tenants).arg(from).arg(from + MAX_BATCH - 1);
                let (seen, available, oldest): (usize, u64, String) = call.invoke_async(&mut self.connection()).await?;
                depth = depth.beside(FlowDepth { available, oldest_run_at_ms: oldest.parse().ok() });
                from += MAX_BATCH;
                if seen < MAX_BATCH {
                    break;
                }
            }
        }
        Ok(depth)
    }

    /// Jobs held under one of these tokens, page by page; cursor 0 starts the scan, and a returned
    /// 0 ends it.
    pub(in crate::queue) async fn held_under(
        &self,
        shard: &Shard,
        tokens: &[LeaseToken],
        cursor: u64,
    ) -> Result<(u64, Vec<(Uuid, LeaseToken)>), RedisError> {
        let mut call = self.call(&scripts::UNANSWERED, shard);
        call.arg(cursor);
        for token in tokens {
            call.arg(token.bytes());
        }
        let answer: Vec<Vec<u8>> = call.invoke_async(&mut self.connection()).await?;
        let Some((cursor, held)) = answer.split_first() else { return Ok((0, Vec::new())) };
        let held = held.chunks_exact(2);
        let held = held.filter_map(|pair| Some((Uuid::from_slice(&pair[0]).ok()?, LeaseToken::parse(&pair[1])?)));
        Ok((String::from_utf8_lossy(cursor).parse().unwrap_or(0), held.collect()))
    }

    /// Which of the jobs are leased at the moment.
    pub async fn leased(&self, queue: &QueueName, jobs: &[(Uuid, TenantId)]) -> Result<Vec<bool>, RedisError> {
        let mut leased = vec![false; jobs.len()];
        for shard in self.shards(queue) {
            let here: Vec<usize> = (0..jobs.len()).filter(|&at| shard.holds(jobs[at].1)).collect();
            if here.is_empty() {
                continue;
            }
            let ids: Vec<Uuid> = here.iter().map(|&at| jobs[at].0).collect();
            for (at, held) in here.into_iter().zip(self.leased_in(&shard, &ids).await?) {
                leased[at] = held;
            }
        }
        Ok(leased)
    }

    /// Which of `ids` are leased from this shard at the moment.
    pub async fn leased_in(&self, shard: &Shard, ids: &[Uuid]) -> Result<Vec<bool>, RedisError> {
        let mut command = redis::cmd("HMGET");
        command.arg(format!("{}:held", keys::root(self.prefix(), shard)));
        for id in ids {
            command.arg(id.as_bytes());
        }
        let holders: Vec<Option<Vec<u8>>> = command.query_async(&mut self.connection()).await?;
        Ok(holders.iter().map(Option::is_some).collect())
    }
}
