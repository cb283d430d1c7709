//! The index's copy of what operators restrict, and which workers serve a queue.
//!
//! Invariant: a change acts on what waits already: whoever was held off by the old limits is judged anew at the next fetch.

use std::{collections::HashMap, time::Duration};

use redis::RedisError;
use uuid::Uuid;

use super::{Index, MAX_BATCH, WORKER_SILENCE, all, millis, scripts};
use crate::{
    queue::{QueueName, Shard, keys},
    tenancy::TenantId,
};

/// A tenant, its packed limits, and what must be there now to be replaced (`None`: whatever is).
pub(in crate::queue) type LimitChange = (TenantId, String, Option<String>);

impl Index {
    /// Sets a tenant's limits, whatever they are now.
    pub(in crate::queue) async fn limit(
        &self,
        queue: &QueueName,
        tenant: TenantId,
        packed: String,
    ) -> Result<(), RedisError> {
        self.limit_in(&self.shard_of(queue, tenant), &[(tenant, packed, None)]).await
    }

    /// Sets limits of tenants who are in this shard.
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

    /// The limits that a shard's scripts go by, packed, by tenant.
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

    /// Stops a shard from handing out jobs or lets it go on, if it was as `expected`.
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

    /// Says that a worker with this many slots serves the queue; to be repeated well within [`WORKER_SILENCE`].
    pub async fn beat(&self, queue: &QueueName, process: Uuid, slots: usize) -> Result<(), RedisError> {
        self.note_worker(queue, process, slots, WORKER_SILENCE).await
    }

    /// Says that a worker no longer serves the queue, and takes back its offer.
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
        // In every shard: each tells of its own who serves it.
        let beats = self.shards(queue).map(async |shard| {
            let mut call = self.call(&scripts::BEAT, &shard);
            call.arg(process.as_bytes()).arg(slots).arg(millis(remembered)).arg(process.simple().to_string());
            call.invoke_async(&mut self.connection()).await
        });
        all(beats).await
    }
}
