//! Position of one job in the index, for [`crate::queue::observe::explain`].
//!
//! Invariant: one script reads everything about the job's shard, so the values are consistent, but
//! stale once read. From the other shards of a split queue only the numbers of active tenants are
//! read, in separate calls.

use futures::future::try_join_all;
use redis::RedisError;
use uuid::Uuid;

use super::{Index, WORKER_SILENCE, millis, scripts, status::IndexState};
use crate::{
    queue::{Priority, QueueName, Shard, index::keys, limits::Limits},
    tenancy::TenantId,
};

/// Position of a job in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::queue) enum Place {
    /// Leased by a worker.
    Held,
    /// In its tenant's flow, behind this many jobs.
    Flow(u64),
    /// Due within the look-ahead.
    Due,
    /// Not in the index (yet).
    Nowhere,
}

/// What delays a job and its tenant.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::queue) struct JobPosition {
    pub(in crate::queue) state: IndexState,
    pub(in crate::queue) queue_paused: bool,
    pub(in crate::queue) place: Place,
    pub(in crate::queue) limits: Limits,
    /// Leases of the tenant.
    pub(in crate::queue) running: u32,
    /// Starts that the tenant's rate permits now; `None` without a rate.
    pub(in crate::queue) tokens: Option<f64>,
    /// Moving average of the tenant's run time in ms.
    pub(in crate::queue) average_ms: Option<f64>,
    pub(in crate::queue) workers: u64,
    pub(in crate::queue) slots: u32,
    /// Other active tenants, in all shards.
    pub(in crate::queue) other_tenants: u64,
    /// Sum of the weights of the other active tenants in the same shard, extrapolated from the
    /// first ones.
    pub(in crate::queue) other_weight: f64,
    /// Other shards of the queue with active tenants; they share the workers' slots with this one.
    pub(in crate::queue) other_shards: u32,
}

impl Index {
    /// Reads the position of a waiting job of this priority.
    pub(in crate::queue) async fn position(
        &self,
        queue: &QueueName,
        id: Uuid,
        tenant: TenantId,
        priority: Priority,
    ) -> Result<JobPosition, RedisError> {
        type Job = (String, i64, String, u64);
        type Tenant = (String, u32, String, String);
        type Queue = (u64, u32, u64, f64);
        let shard = self.shard_of(queue, tenant);
        let mut call = self.call(&scripts::JOB_POSITION, &shard);
        call.arg(id.as_bytes()).arg(tenant.as_uuid().as_bytes()).arg(priority.get()).arg(millis(WORKER_SILENCE));
        let values: redis::Value = call.invoke_async(&mut self.connection()).await?;
        let values: Vec<redis::Value> = redis::from_redis_value(values)?;
        let part = |from: usize| redis::Value::Array(values.iter().skip(from).take(4).cloned().collect());
        let (state, paused, place, before): Job = redis::from_redis_value(part(0))?;
        let (limits, running, tokens, average): Tenant = redis::from_redis_value(part(4))?;
        let (workers, slots, here, other_weight): Queue = redis::from_redis_value(part(8))?;
        let elsewhere = self.rings_beside(&shard).await?;
        Ok(JobPosition {
            state: IndexState::parse(&state),
            queue_paused: paused == 1,
            place: Place::parse(&place, before),
            limits: Limits::unpack(&limits),
            running,
            tokens: tokens.parse().ok(),
            average_ms: average.parse().ok(),
            workers,
            slots,
            other_tenants: here + elsewhere.iter().sum::<u64>(),
            other_weight,
            other_shards: u32::try_from(elsewhere.len()).unwrap_or(u32::MAX),
        })
    }

    /// Numbers of active tenants in the queue's other shards; shards without any are omitted.
    async fn rings_beside(&self, shard: &Shard) -> Result<Vec<u64>, RedisError> {
        let others = self.shards(shard.queue()).filter(|other| other != shard);
        let sizes = others.map(async |other| {
            let active = format!("{}:active", keys::root(self.prefix(), &other));
            redis::cmd("ZCARD").arg(active).query_async::<u64>(&mut self.connection()).await
        });
        Ok(try_join_all(sizes).await?.into_iter().filter(|&size| size > 0).collect())
    }
}

impl Place {
    fn parse(text: &str, before: u64) -> Self {
        match text {
            "held" => Self::Held,
            "flow" => Self::Flow(before),
            "due" => Self::Due,
            _ => Self::Nowhere,
        }
    }
}
