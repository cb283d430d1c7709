//! The index's copy of limits and pauses, and the workers that serve a queue.
//!
//! Invariant: a change applies to waiting jobs too: the next fetch evaluates throttled tenants
//! against the new limits.

use std::{collections::HashMap, time::Duration};

use redis::RedisError;
use uuid::Uuid;

use super::{Index, MAX_BATCH, WORKER_SILENCE, all, millis, scripts};
use crate::{
    queue::{QueueName, Shard, index::keys},
    tenancy::TenantId,
};

/// A tenant, its packed limits, and the packed limits they replace (`None`: any).
pub(in crate::queue) type LimitChange = (TenantId, String, Option<String>);

impl Index {
    /// Sets a tenant's limits unconditionally.
    pub(in crate::queue) async fn limit(
        &self,
        queue: &QueueName,
        tenant: TenantId,
        packed: String,
    ) -> Result<(), RedisError> {
        self.limit_in(&self.shard_of(queue, tenant), &[(tenant, packed, None)]).await
    }

    /// Sets limits of tenants in this shard.
    pub(in crate::queue) async fn limit_in(&self, shard: &Shard, changes: &[LimitChange]) -> Result<(), RedisError> {
        for chunk in changes.chunks(MAX_BATCH) {
            let mut call = self.call(&scripts::LIMIT, shard);
            for (tenant, packed, expected) in chunk {
                call.arg(tenant.as_uuid().as_bytes()).arg(packed).arg(expected.as_deref().unwrap_or("*"));
            }
            call.invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }

    /// Packed limits in a shard, by tenant.
    pub(in crate::queue) async fn limits(&self, shard: &Shard) -> Result<HashMap<TenantId, String>, RedisError> {
        let (key, mut cursor, mut found) = (format!("{}:limits", keys::root(self.prefix(), shard)), 0, HashMap::new());
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(&key).arg(cursor).arg("COUNT").arg(MAX_BATCH);
            let (next, page): (u64, Vec<(Vec<u8>, String)>) = command.query_async(&mut self.connection()).await?;
            let named = |(id, packed): (Vec<u8>, String)| Some((TenantId::new(Uuid::from_slice(&id).ok()?), packed));
            found.extend(page.into_iter().filter_map(named));
            if next == 0 {
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Pauses or resumes a shard, if its flag equals `expected`.
    pub(in crate::queue) async fn pause(
        &self,
        shard: &Shard,
        paused: bool,
        expected: Option<bool>,
    ) -> Result<(), RedisError> {
        let flag = |set| if set { "1" } else { "0" };
        let mut call = self.call(&scripts::PAUSE, shard);
        call.arg(flag(paused)).arg(expected.map_or("*", flag)).invoke_async(&mut self.connection()).await
    }

    /// Heartbeat of a worker with this many slots; repeat well within [`WORKER_SILENCE`].
    pub async fn beat(&self, queue: &QueueName, process: Uuid, slots: usize) -> Result<(), RedisError> {
        self.note_worker(queue, process, slots, WORKER_SILENCE).await
    }

    /// Records that a worker no longer serves the queue, and removes its ready mark.
    pub async fn leave(&self, queue: &QueueName, process: Uuid, slots: usize) -> Result<(), RedisError> {
        self.note_worker(queue, process, slots, Duration::ZERO).await
    }

    async fn note_worker(
        &self,
        queue: &QueueName,
        process: Uuid,
        slots: usize,
        remembered: Duration,
    ) -> Result<(), RedisError> {
        // Every shard has its own record of the workers that serve it.
        let beats = self.shards(queue).map(async |shard| {
            let mut call = self.call(&scripts::BEAT, &shard);
            call.arg(process.as_bytes()).arg(slots).arg(millis(remembered)).arg(process.simple().to_string());
            call.invoke_async(&mut self.connection()).await
        });
        all(beats).await
    }
}
