//! The real queue of one case, together with its model.
//!
//! Each step is applied to both. Results that only the real queue determines (such as the jobs of a
//! fetch) are passed to the model, which checks them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use chrono::TimeDelta;
use redis::aio::MultiplexedConnection;
use shared::{
    ids,
    queue::{
        Index, IndexSettings, Lease, ShardCounts, dispatch::Consumer, enqueue::Producer, repair::check::Checker,
        repair::reconcile::Reconciler,
    },
};
use sqlx::{Connection as _, PgConnection};
use tests::redis_server::connect;
use uuid::Uuid;

use super::{
    World,
    fairness::Fairness,
    index,
    ledger::{Job, Ledger},
    messages::Messages,
    rescues::HalfRescue,
    step::Step,
};
use crate::queue::support::queue;

/// So long that no lease expires unintentionally.
pub const LEASE: Duration = Duration::from_hours(1);
/// Longer than a lease, too, so that it holds even for late messages.
pub const LATER: TimeDelta = TimeDelta::hours(10);

/// A lease obtained by a worker.
pub struct Held {
    pub lease: Lease,
    /// The holder is alive and has not ended the lease.
    pub alive: bool,
    /// The life of the index in which the lease was obtained.
    pub life: usize,
}

#[derive(Debug)]
pub struct Model {
    pub ledger: Ledger,
    pub index: index::Index,
    pub fairness: Fairness,
}

pub struct Scene<'a> {
    pub world: &'a World,
    pub index: Index,
    pub consumer: Consumer,
    pub reconciler: Reconciler,
    pub producer: Producer,
    pub owner: PgConnection,
    pub checker: Checker,
    pub redis: MultiplexedConnection,
    prefix: String,
    /// Messages in flight to workers.
    pub messages: Messages,
    pub rescue: Option<HalfRescue>,
    /// Counts the losses and rebuilds of the index: jobs held before one may run twice.
    pub life: usize,
    /// Every lease ever obtained.
    pub leases: Vec<Held>,
    pub model: Model,
}

impl<'a> Scene<'a> {
    pub async fn open(world: &'a World) -> Result<Self> {
        let system = &world.system;
        let prefix = format!("model-{}", ids::new_id(&system.clock).simple());
        let response_timeout = Duration::from_secs(10);
        let (url, shards) = (system.redis_url.clone(), ShardCounts::default());
        let index = Index::open(&IndexSettings { url, prefix: prefix.clone(), response_timeout, shards })?;
        let mut owner = PgConnection::connect(&system.urls.owner).await?;
        sqlx::query("truncate jobs, unique_keys, job_dependencies, batches").execute(&mut owner).await?;
        let (messages, subscription) = Messages::listen(system, &index).await?;
        let mut scene = Self {
            world,
            messages,
            rescue: None,
            life: 0,
            checker: Checker::new(system.system.clone(), index.clone(), LEASE),
            consumer: Consumer::new(system.system.clone(), index.clone(), LEASE).with_ready_marks(subscription),
            reconciler: Reconciler::new(system.system.clone(), index.clone()),
            producer: Producer::start(&system.system, index.clone(), system.clock.clone()),
            owner,
            redis: connect(&system.redis_url).await?,
            index,
            prefix,
            leases: Vec::new(),
            model: Model { ledger: Ledger::default(), index: index::Index::lost(), fairness: Fairness::default() },
        };
        scene.rebuild(false).await?;
        Ok(scene)
    }

    pub async fn take(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Enqueue { ref request, told } => self.enqueue(request, told).await,
            Step::Fetch { wanted } => self.fetch(wanted).await.map(drop),
            Step::WorkOff { wanted, ran_ms, discards } => self.work_off(wanted, ran_ms, discards).await,
            Step::Finish { pick, end, ran_ms, settled } => self.finish(pick, end, ran_ms, settled).await,
            Step::Release { pick } => self.release(pick).await,
            Step::HolderDies { pick, begun } => self.holder_dies(pick, begun).await,
            Step::Rescue => self.rescue().await,
            Step::RescueBegins => self.rescue_begins().await,
            Step::RescueEnds => self.rescue_ends().await,
            Step::Ask { wanted, newly_active } => self.ask(wanted, newly_active).await,
            Step::Read { pick } => self.read(pick).await,
            Step::MessageAges { pick, lost } => self.message_ages(pick, lost).await,
            Step::LatePush { pick, twice } => self.late_push(pick, twice).await,
            Step::LateSettle { pick } => self.late_settle(pick).await,
            Step::LateRenew { pick } => self.late_renew(pick).await,
            Step::Cancel { pick, told } => self.cancel(pick, told).await,
            Step::Redrive { pick, given_up, told } => self.redrive(pick, given_up, told).await,
            Step::LoseIndex => self.lose_index().await,
            Step::OldState { pick } => self.old_state(pick).await,
            Step::Rebuild { asserted } => self.rebuild(asserted).await,
            Step::RebuildCutShort => self.rebuild_cut_short().await,
            Step::Sweep => self.sweep().await,
            Step::FallDue { pick } => self.fall_due(pick).await,
            Step::Promote => self.promote().await,
            Step::TimeIsUp { pick, held } => self.time_is_up(pick, held).await,
            Step::Expire => self.expire().await,
        }
    }

    /// One of the jobs that match.
    pub fn job_where(&self, pick: usize, which: impl Fn(&Job) -> bool) -> Option<Uuid> {
        let ids: Vec<Uuid> = self.model.ledger.jobs.iter().filter(|job| which(job)).map(|job| job.id).collect();
        (!ids.is_empty()).then(|| ids[pick % ids.len()])
    }

    /// Jobs that the index may dispatch, read from its flows.
    pub async fn flows(&self) -> Result<BTreeSet<Uuid>> {
        let mut connection = self.redis.clone();
        let pattern = format!("{}:{{{}*}}*:flow:*", self.prefix, queue());
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await?;
        let mut ids = BTreeSet::new();
        for key in keys {
            let members: Vec<Vec<u8>> =
                redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut connection).await?;
            ids.extend(members.iter().filter_map(|member| Uuid::from_slice(member.get(..16)?).ok()));
        }
        Ok(ids)
    }

    /// Jobs that are held according to the index.
    pub async fn held(&self) -> Result<BTreeSet<Uuid>> {
        let mut connection = self.redis.clone();
        let ids: Vec<Vec<u8>> = redis::cmd("HKEYS").arg(self.key("held")).query_async(&mut connection).await?;
        Ok(ids.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.prefix, queue())
    }

    /// Jobs that are due soon according to the index.
    pub async fn due(&self) -> Result<BTreeSet<Uuid>> {
        let mut connection = self.redis.clone();
        let key = format!("{}:{{{}}}:due", self.prefix, queue());
        let members: Vec<Vec<u8>> = redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query_async(&mut connection).await?;
        Ok(members.iter().filter_map(|member| Uuid::from_slice(member.get(..16)?).ok()).collect())
    }

    /// Deletes the whole index.
    pub async fn delete_keys(&self) -> Result<()> {
        let mut connection = self.redis.clone();
        let keys: Vec<Vec<u8>> =
            redis::cmd("KEYS").arg(format!("{}:*", self.prefix)).query_async(&mut connection).await?;
        if keys.is_empty() {
            return Ok(());
        }
        Ok(redis::cmd("DEL").arg(keys).query_async(&mut connection).await?)
    }
}
