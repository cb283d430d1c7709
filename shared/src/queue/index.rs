//! The index in Redis: who is next, who holds what. One method for each script in `lua/`.
//!
//! Invariant: nothing here is the truth. Every method may be repeated, and every answer is judged by the ledger.
//! Next: `lua/prelude.lua` for the layout of a queue's keys, [`records`] for what goes in and comes out.

mod records;

use std::{sync::Arc, sync::LazyLock, time::Duration};

use redis::{
    RedisError, Script, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use uuid::Uuid;

pub(super) use self::records::{FetchedIds, LeasedId};
pub use self::records::{IndexState, IndexStatus, JobChange, LaneDepth, LeaseToken, Settlement, WaitingJob};
use super::{Priority, QueueName, keys};
use crate::tenancy::TenantId;

/// More ids than this in one call and Lua's `unpack` runs out of stack; it also bounds how long Redis is busy with one call.
pub const MAX_BATCH: usize = 500;
const PROMOTED_PER_FETCH: usize = 200;
const LANES_CLEARED_PER_CALL: usize = 500;

macro_rules! script {
    ($name:literal) => {
        script!("", $name)
    };
    ($first_line:literal, $name:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(
                $first_line,
                include_str!("lua/prelude.lua"),
                include_str!(concat!("lua/", $name, ".lua"))
            ))
        })
    };
}

static PUSH: LazyLock<Script> = script!("push");
static FETCH: LazyLock<Script> = script!("fetch");
static SETTLE: LazyLock<Script> = script!("settle");
// A full memory must not make live holders look dead: renewing changes scores that are there, so it hardly grows anything.
static RENEW: LazyLock<Script> = script!("#!lua flags=allow-oom\n", "renew");
static EXPIRED: LazyLock<Script> = script!("expired");
static CANCEL: LazyLock<Script> = script!("cancel");
static WATCH: LazyLock<Script> = script!("watch");
static CLEAR: LazyLock<Script> = script!("clear");
static ADVANCE: LazyLock<Script> = script!("advance");
static STATUS: LazyLock<Script> = script!("status");
static DEPTH: LazyLock<Script> = script!("depth");

/// Where the index is and how long a call may take.
#[derive(Clone, Debug)]
pub struct IndexSettings {
    /// `redis://` or `rediss://` URL.
    pub url: String,
    /// The first part of every key, so that several systems can share one Redis.
    pub prefix: String,
    /// After this long without an answer a call fails.
    pub response_timeout: Duration,
}

/// A connection to the index. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Index {
    manager: ConnectionManager,
    client: redis::Client,
    prefix: Arc<str>,
}

impl Index {
    /// Prepares a connection without making one yet: a process starts while Redis is away.
    pub fn open(settings: &IndexSettings) -> Result<Self, RedisError> {
        let client = redis::Client::open(settings.url.as_str())?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(settings.response_timeout))
            .set_response_timeout(Some(settings.response_timeout))
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500))
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { manager, client, prefix: settings.prefix.as_str().into() })
    }

    /// Answers when Redis does: for readiness.
    pub async fn ping(&self) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(&mut self.manager.clone()).await
    }

    /// Makes waiting jobs known. Repeating it is harmless.
    pub async fn push(&self, queue: &QueueName, jobs: &[WaitingJob]) -> Result<(), RedisError> {
        for chunk in jobs.chunks(MAX_BATCH) {
            let mut call = self.call(&PUSH, queue);
            for job in chunk {
                call.arg(job.id.as_bytes())
                    .arg(job.tenant.as_uuid().as_bytes())
                    .arg(job.priority.get())
                    .arg(job.run_at_ms);
            }
            call.invoke_async::<()>(&mut self.manager.clone()).await?;
        }
        Ok(())
    }

    pub(super) async fn fetch(
        &self,
        queue: &QueueName,
        wanted: usize,
        lease: Duration,
        token: LeaseToken,
    ) -> Result<FetchedIds, RedisError> {
        let (state, ids, next_due_ms, scores): (String, Vec<u8>, i64, Vec<f64>) = self
            .call(&FETCH, queue)
            .arg(wanted.min(MAX_BATCH))
            .arg(millis(lease))
            .arg(token.bytes())
            .arg(PROMOTED_PER_FETCH)
            .invoke_async(&mut self.manager.clone())
            .await?;
        let ids = ids.chunks_exact(16).zip(scores).filter_map(|(id, score)| LeasedId::parse(id, score)).collect();
        Ok(FetchedIds {
            state: IndexState::parse(&state),
            ids,
            next_due: u64::try_from(next_due_ms).ok().map(Duration::from_millis),
        })
    }

    /// Ends leases; those that other tokens hold by now are left alone.
    pub async fn settle(&self, queue: &QueueName, settlements: &[Settlement]) -> Result<(), RedisError> {
        for chunk in settlements.chunks(MAX_BATCH) {
            let mut call = self.call(&SETTLE, queue);
            for end in chunk {
                let ran_ms = end.ran.map_or(-1.0, |ran| ran.as_secs_f64() * 1_000.0);
                call.arg(end.id.as_bytes()).arg(end.token.bytes()).arg(ran_ms);
                match end.again {
                    Some((run_at_ms, priority)) => call.arg(run_at_ms).arg(priority.get()),
                    None => call.arg("").arg(""),
                };
            }
            call.invoke_async::<()>(&mut self.manager.clone()).await?;
        }
        Ok(())
    }

    /// Extends leases and returns the ids of those that are lost, with the state of the index.
    pub async fn renew(
        &self,
        queue: &QueueName,
        lease: Duration,
        held: &[(Uuid, LeaseToken, TenantId)],
    ) -> Result<(IndexState, Vec<Uuid>), RedisError> {
        let (mut state, mut lost) = (IndexState::Ready, Vec::new());
        for chunk in held.chunks(MAX_BATCH) {
            let mut call = self.call(&RENEW, queue);
            call.arg(millis(lease));
            for (id, token, tenant) in chunk {
                call.arg(id.as_bytes()).arg(token.bytes()).arg(tenant.as_uuid().as_bytes());
            }
            let answer: Vec<Vec<u8>> = call.invoke_async(&mut self.manager.clone()).await?;
            let mut answer = answer.into_iter();
            state = answer.next().map_or(IndexState::Stale, |text| IndexState::parse(&String::from_utf8_lossy(&text)));
            lost.extend(answer.filter_map(|id| Uuid::from_slice(&id).ok()));
        }
        Ok((state, lost))
    }

    /// Leases that ran out, oldest first. They stay until they are settled.
    pub(super) async fn expired(&self, queue: &QueueName, limit: usize) -> Result<Vec<(Uuid, LeaseToken)>, RedisError> {
        let flat: Vec<Vec<u8>> = self.call(&EXPIRED, queue).arg(limit).invoke_async(&mut self.manager.clone()).await?;
        Ok(flat
            .chunks_exact(2)
            .filter_map(|pair| Some((Uuid::from_slice(&pair[0]).ok()?, LeaseToken::parse(&pair[1])?)))
            .collect())
    }

    /// Takes jobs that are final in the ledger out of the index, and tells the holders of running ones.
    pub async fn cancel(&self, queue: &QueueName, jobs: &[(Uuid, TenantId, Priority)]) -> Result<(), RedisError> {
        for chunk in jobs.chunks(MAX_BATCH) {
            let mut call = self.call(&CANCEL, queue);
            for (id, tenant, priority) in chunk {
                call.arg(id.as_bytes()).arg(tenant.as_uuid().as_bytes()).arg(priority.get());
            }
            call.invoke_async::<()>(&mut self.manager.clone()).await?;
        }
        Ok(())
    }

    /// Has what happens to a job announced for `span`; see [`super::Notices::watch`]. Repeating it prolongs.
    pub async fn watch(&self, queue: &QueueName, id: Uuid, span: Duration) -> Result<(), RedisError> {
        let mut call = self.call(&WATCH, queue);
        call.arg(id.as_bytes()).arg(millis(span)).invoke_async(&mut self.manager.clone()).await
    }

    /// Empties a queue's index and opens the grace; `false` if a leader of a later epoch was here.
    pub(super) async fn clear(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        loop {
            let answer: String = self
                .call(&CLEAR, queue)
                .arg(epoch)
                .arg(LANES_CLEARED_PER_CALL)
                .invoke_async(&mut self.manager.clone())
                .await?;
            match answer.as_str() {
                "more" => {}
                "cleared" => return Ok(true),
                _ => return Ok(false),
            }
        }
    }

    /// Ends the grace of a rebuild: workers may fetch. `false` if the rebuild was overtaken.
    pub(super) async fn open_for_fetching(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        self.call(&ADVANCE, queue).arg(epoch).arg("state").arg("ready").invoke_async(&mut self.manager.clone()).await
    }

    /// Notes that every page of the ledger has been pushed. `false` if the rebuild was overtaken.
    pub(super) async fn mark_complete(&self, queue: &QueueName, epoch: i64) -> Result<bool, RedisError> {
        self.call(&ADVANCE, queue).arg(epoch).arg("complete").arg("1").invoke_async(&mut self.manager.clone()).await
    }

    /// What the index says of a queue.
    pub async fn status(&self, queue: &QueueName) -> Result<IndexStatus, RedisError> {
        let (state, epoch, complete, tenants_waiting, due, leased): (String, i64, i64, u64, u64, u64) =
            self.call(&STATUS, queue).invoke_async(&mut self.manager.clone()).await?;
        Ok(IndexStatus {
            state: IndexState::parse(&state),
            epoch,
            complete: complete == 1,
            tenants_waiting,
            due,
            leased,
        })
    }

    /// Counts the jobs in lanes, a bounded number of tenants a call.
    pub async fn depth(&self, queue: &QueueName) -> Result<LaneDepth, RedisError> {
        let (mut depth, mut from) = (LaneDepth::default(), 0);
        loop {
            let (tenants, available, oldest): (usize, u64, String) = self
                .call(&DEPTH, queue)
                .arg(from)
                .arg(from + MAX_BATCH - 1)
                .invoke_async(&mut self.manager.clone())
                .await?;
            depth.available += available;
            depth.oldest_run_at_ms = [depth.oldest_run_at_ms, oldest.parse().ok()].into_iter().flatten().min();
            from += MAX_BATCH;
            if tenants < MAX_BATCH {
                return Ok(depth);
            }
        }
    }

    /// Which of `ids` are leased right now.
    pub async fn leased(&self, queue: &QueueName, ids: &[Uuid]) -> Result<Vec<bool>, RedisError> {
        let mut command = redis::cmd("HMGET");
        command.arg(format!("{}:held", keys::root(&self.prefix, queue)));
        for id in ids {
            command.arg(id.as_bytes());
        }
        let holders: Vec<Option<Vec<u8>>> = command.query_async(&mut self.manager.clone()).await?;
        Ok(holders.iter().map(Option::is_some).collect())
    }

    /// Remembers for `ttl` that an effect happened, so that a repeat of the job need not do it again.
    pub async fn mark_effect(&self, effect: &str, ttl: Duration) -> Result<(), RedisError> {
        let key = keys::effect_mark(&self.prefix, effect);
        redis::cmd("SET").arg(key).arg("1").arg("PX").arg(millis(ttl)).query_async(&mut self.manager.clone()).await
    }

    /// Whether [`Self::mark_effect`] remembers this effect.
    pub async fn effect_happened(&self, effect: &str) -> Result<bool, RedisError> {
        redis::cmd("EXISTS").arg(keys::effect_mark(&self.prefix, effect)).query_async(&mut self.manager.clone()).await
    }

    pub(super) const fn client(&self) -> &redis::Client {
        &self.client
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn call<'a>(&self, script: &'a Script, queue: &QueueName) -> ScriptInvocation<'a> {
        script.key(keys::root(&self.prefix, queue))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
