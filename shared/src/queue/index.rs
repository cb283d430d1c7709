//! The index in Redis: the order of waiting jobs, and the leases of running ones. One method per
//! script in `lua/`.
//!
//! Invariant: the index is a rebuildable cache. Every method may be repeated, and the ledger
//! confirms every result.
//! Next: [`sharding`] for the shard that serves a call, `lua/lib/layout.lua` for the key layout,
//! [`dispatch`] and [`leases`] for the way of a job through the index.

pub mod announce;
mod building;
mod checking;
pub mod dispatch;
pub mod eviction;
mod fitness;
mod job_position;
pub mod keys;
pub mod leases;
mod limiting;
pub mod notifications;
mod packed;
mod redis_clock;
mod scripts;
mod sharding;
mod start_cost;
mod stats;
pub mod status;

use std::{sync::Arc, time::Duration};

use redis::{
    IntoConnectionInfo as _, RedisError, Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use uuid::Uuid;

pub use self::start_cost::StartCost;
pub(in crate::queue) use self::{
    checking::{CheckMode, Member},
    job_position::{JobPosition, Place},
    limiting::LimitChange,
};
use self::{
    redis_clock::RedisClock,
    scripts::{CANCEL, PUSH, WATCH},
    sharding::{Split, all},
};
use crate::queue::{
    job::QueueName,
    shard::Shard,
    shard_counts::ShardCounts,
    waiting_job::{CancelledJob, WaitingJob},
};
use crate::tenancy::TenantId;

/// Above this many ids per call, Lua's `unpack` overflows its stack. The bound also limits how long
/// one call occupies Redis.
pub const MAX_BATCH: usize = 500;
/// Jobs per push call, about 0.5 ms of Redis time, so that other calls interleave with one tenant's
/// large submission.
const PUSHED_AT_ONCE: usize = 100;
/// A score in a flow is priority times this plus `run_at` in ms, as in the scripts.
const PRIORITY_SPAN: i64 = 1 << 43;
/// A worker whose last heartbeat is older than this is not counted.
pub const WORKER_SILENCE: Duration = Duration::from_secs(5);

/// Address of the index and the timeout of its calls.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// `redis://` or `rediss://` URL.
    pub url: String,
    /// Prefix of every key, so that several systems can share one Redis.
    pub prefix: String,
    /// Timeout of a call.
    pub response_timeout: Duration,
    /// Shards per queue; the same in all processes.
    pub shards: ShardCounts,
}

/// A connection to the index. Cheap to clone; reconnects automatically.
#[derive(Clone)]
pub struct Index {
    manager: ConnectionManager,
    client: redis::Client,
    prefix: Arc<str>,
    shards: ShardCounts,
    response_timeout: Duration,
    clock: Arc<RedisClock>,
    start_cost: StartCost,
}

impl Index {
    /// Prepares a lazy connection, so that a process starts without Redis.
    pub fn open(settings: &IndexSettings) -> Result<Self, RedisError> {
        // Calls of many tasks share the connection: Nagle's algorithm would delay a call until the
        // previous one is acknowledged.
        let tcp = TcpSettings::default().set_nodelay(true);
        let client = redis::Client::open(settings.url.as_str().into_connection_info()?.set_tcp_settings(tcp))?;
        Ok(Self {
            manager: connection(&client, settings.response_timeout)?,
            client,
            prefix: settings.prefix.as_str().into(),
            shards: settings.shards.clone(),
            response_timeout: settings.response_timeout,
            clock: Arc::new(RedisClock::new()),
            start_cost: StartCost::default(),
        })
    }

    /// Prepares another connection to the same Redis, for calls with a timeout of their own.
    pub fn another_connection(&self, response_timeout: Duration) -> Result<ConnectionManager, RedisError> {
        connection(&self.client, response_timeout)
    }

    /// Adds waiting jobs to the index, in short calls so that concurrent calls wait little.
    /// Idempotent.
    pub async fn push(&self, queue: &QueueName, jobs: &[WaitingJob]) -> Result<(), RedisError> {
        self.push_in_calls(queue, jobs, PUSHED_AT_ONCE).await
    }

    /// As [`Self::push`], for a rebuild: in calls of the maximum size, since the overhead of one
    /// call equals about 50 jobs.
    pub(in crate::queue) async fn push_in_bulk(
        &self,
        queue: &QueueName,
        jobs: &[WaitingJob],
    ) -> Result<(), RedisError> {
        self.push_in_calls(queue, jobs, MAX_BATCH).await
    }

    async fn push_in_calls(&self, queue: &QueueName, jobs: &[WaitingJob], at_once: usize) -> Result<(), RedisError> {
        match self.split(queue, jobs, |job| job.tenant) {
            Split::Whole(shard) => self.push_to(&shard, jobs, at_once).await,
            Split::Parts(parts) => all(parts.iter().map(|(shard, jobs)| self.push_to(shard, jobs, at_once))).await,
        }
    }

    async fn push_to(&self, shard: &Shard, jobs: &[WaitingJob], at_once: usize) -> Result<(), RedisError> {
        for chunk in jobs.chunks(at_once) {
            let packed: Vec<_> = chunk.iter().map(packed::waiting_job).collect();
            self.call(&PUSH, shard).arg(packed.as_flattened()).invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }

    /// Measured start cost, sent with each settlement.
    pub const fn start_cost(&self) -> &StartCost {
        &self.start_cost
    }

    /// Removes jobs that are final in the ledger from the index, and notifies the holders of
    /// running ones.
    pub async fn cancel(&self, queue: &QueueName, jobs: &[CancelledJob]) -> Result<(), RedisError> {
        match self.split(queue, jobs, |job| job.tenant) {
            Split::Whole(shard) => self.cancel_in(&shard, jobs).await,
            Split::Parts(parts) => all(parts.iter().map(|(shard, jobs)| self.cancel_in(shard, jobs))).await,
        }
    }

    async fn cancel_in(&self, shard: &Shard, jobs: &[CancelledJob]) -> Result<(), RedisError> {
        for chunk in jobs.chunks(MAX_BATCH) {
            let mut call = self.call(&CANCEL, shard);
            for job in chunk {
                call.arg(job.id.as_bytes())
                    .arg(job.tenant.as_uuid().as_bytes())
                    .arg(job.priority.get())
                    .arg(job.attempt);
            }
            call.invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }

    /// Publishes changes of a job for `span`; see [`crate::queue::Notices::watch`]. Repeating the call
    /// extends the span.
    pub async fn watch(&self, queue: &QueueName, tenant: TenantId, id: Uuid, span: Duration) -> Result<(), RedisError> {
        let shard = self.shard_of(queue, tenant);
        let mut call = self.call(&WATCH, &shard);
        call.arg(id.as_bytes()).arg(millis(span)).invoke_async(&mut self.connection()).await
    }

    pub(in crate::queue) fn connection(&self) -> ConnectionManager {
        self.manager.clone()
    }

    pub(in crate::queue) const fn client(&self) -> &redis::Client {
        &self.client
    }

    /// Prefix of every key.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn call<'a>(&self, script: &'a Script, shard: &Shard) -> ScriptInvocation<'a> {
        script.key(keys::root(&self.prefix, shard))
    }
}

fn connection(client: &redis::Client, response_timeout: Duration) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(response_timeout))
        .set_response_timeout(Some(response_timeout))
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(500))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
