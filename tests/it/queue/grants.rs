//! Direct dispatch: a worker with an unfilled fetch gets the next job leased by the push that adds
//! it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use serde_json::json;
use shared::{
    ids,
    queue::{
        Grant, Notice, Notices, Priority, Settlement, Welcome,
        dispatch::{Consumer, Fetched},
    },
    tenancy::TenantId,
};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::support::{
    LEASE, PATIENCE, build_index, callback, enqueue_suspect, indexed, queue, reaches, redis, root, shard, virtual_time,
};

/// Twice the time after which a worker polls again on its own.
const OFFERED: Duration = Duration::from_secs(1);

/// A worker whose last fetch found nothing, subscribed to notifications.
pub(super) struct Idle {
    process: Uuid,
    pub(super) consumer: Consumer,
    notices: Notices,
    stop: CancellationToken,
}

impl Idle {
    pub(super) async fn start(system: &TestSystem, lease: Duration) -> Result<Self> {
        let process = ids::new_id(&system.clock);
        let stop = CancellationToken::new();
        let (mut notices, subscription) = Notices::listen(&system.index, vec![shard()], process, stop.clone());
        assert_eq!(notices.next().await, Some(Notice::Connected));
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), lease).offering(subscription);
        let idle = Self { process, consumer, notices, stop };
        idle.finds_nothing().await?;
        Ok(idle)
    }

    pub(super) async fn finds_nothing(&self) -> Result<()> {
        assert_eq!(self.consumer.fetch(&shard(), 5).await?.taken, 0);
        Ok(())
    }

    pub(super) async fn hears(&mut self) -> Result<Notice> {
        timeout(PATIENCE, self.notices.next()).await?.context("the subscription is open")
    }

    /// The last notification before the subscription stops.
    pub(super) async fn stops(&mut self) -> Option<Notice> {
        self.stop.cancel();
        self.notices.next().await
    }

    /// Fetches like a worker with all other slots busy.
    async fn takes(&self, jobs: usize, welcome: Welcome) -> Result<()> {
        let fetched = self.consumer.fetch_from(&[(&shard(), jobs)], welcome).await.remove(0)?;
        assert_eq!(fetched.taken, jobs);
        Ok(())
    }

    /// Fetches up to three jobs of newly active tenants only, like a worker with only reserved
    /// permits free.
    async fn wants_newly_active(&self) -> Result<Fetched> {
        Ok(self.consumer.fetch_from(&[(&shard(), 3)], Welcome::NewlyActive).await.remove(0)?)
    }

    pub(super) async fn is_granted(&mut self) -> Result<Grant> {
        match self.hears().await? {
            Notice::Granted(from, grant) if from == shard() => Ok(grant),
            other => panic!("expected a direct dispatch, got {other:?}"),
        }
    }
}

pub(super) async fn scene() -> Result<(TestSystem, TenantId)> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    build_index(&system).await;
    Ok((system, tenant))
}

/// One tenant has ten jobs, one of them dispatched directly to the worker; two other tenants have
/// none.
async fn busy_scene() -> Result<(TestSystem, TenantId, [TenantId; 2], Idle)> {
    let (system, tenant) = scene().await?;
    let newly_active = [system.tenant("newly_active").await?, system.tenant("another").await?];
    let mut busy = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 10).await?;
    busy.is_granted().await?;
    assert_eq!(busy.hears().await?, Notice::Wake(shard()));
    Ok((system, tenant, newly_active, busy))
}

pub(super) async fn commit(system: &TestSystem, tenant: TenantId, jobs: usize) -> Result<Vec<Uuid>> {
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await
}

pub(super) async fn leased(system: &TestSystem) -> Result<u64> {
    Ok(system.index.status(&queue()).await?.leased)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_found_nothing_gets_the_next_job_unasked() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let id = commit(&system, tenant, 1).await?[0];
    let grant = idle.is_granted().await?;
    assert_eq!(other.fetch(&shard(), 1).await?.taken, 0, "the job is leased");
    let mut fetched = idle.consumer.take(&[(shard(), grant)]).await.remove(0)?;
    let lease = fetched.leases.pop().context("the job waited when its row was read")?;
    assert_eq!((lease.id, lease.tenant, lease.attempt), (id, tenant, 1));
    system.index.settle(&shard(), &[lease.release()]).await?;
    assert_eq!((leased(&system).await?, system.index.depth(&queue()).await?.available), (0, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_counts_once_and_for_one_job() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    idle.is_granted().await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()));
    assert_eq!(idle.consumer.fetch(&shard(), 5).await?.taken, 1);
    // That fetch has set the ready mark again.
    commit(&system, tenant, 3).await?;
    idle.is_granted().await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "two more jobs wait, so all workers are notified");
    assert_eq!(leased(&system).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_waits_where_it_was_and_costs_nothing() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let mut job = system.job(tenant, "noop", &json!({}));
    job.priority = Priority::new(1).context("the first")?;
    let id = system.enqueue(vec![job]).await?[0];
    let grant = idle.is_granted().await?;
    assert!(virtual_time(&system, tenant).await? > 0.0, "a lease is charged an estimate");
    idle.consumer.refuse(&shard(), &grant).await?;
    assert_eq!((leased(&system).await?, virtual_time(&system, tenant).await?), (0, 0.0));
    let again = idle.consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits again")?;
    assert_eq!((again.id, again.priority.get(), again.attempt), (id, 1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_hears_of_what_was_granted_before() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    let granted = async || (leased(&system).await.ok()? == 1).then_some(());
    eventually(PATIENCE, "the job is dispatched directly", granted).await;
    // The message has arrived or is in flight.
    sleep(Duration::from_millis(200)).await;
    let Some(Notice::Granted(_, grant)) = idle.stops().await else { panic!("the direct dispatch is lost") };
    assert_eq!(idle.stops().await, None);
    idle.consumer.refuse(&shard(), &grant).await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

/// A worker that has disconnected, left the queue or not polled for too long gets nothing: the job
/// waits for any worker.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_nobody_is_not_taken() -> Result<()> {
    let (system, tenant) = scene().await?;
    let Idle { notices, .. } = Idle::start(&system, LEASE).await?;
    drop(notices);
    eventually(PATIENCE, "Redis has noticed", async || granted_channels(&system).await.ok()?.is_empty().then_some(()))
        .await;
    commit(&system, tenant, 1).await?;
    indexed_and_free(&system, 1).await;

    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    assert_eq!(other.fetch(&shard(), 1).await?.taken, 1);
    let mut idle = Idle::start(&system, LEASE).await?;
    system.index.leave(&queue(), idle.process, 1).await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "the worker has left the queue");

    assert_eq!(idle.consumer.fetch(&shard(), 2).await?.taken, 1);
    sleep(OFFERED + Duration::from_millis(100)).await;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "the worker has not polled again");
    assert_eq!(leased(&system).await?, 2);
    Ok(())
}

/// A ready mark names one connection, so a mark set before a restart of Redis is void after it.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_void_when_its_connection_is_gone() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec_async(&mut redis(&system).await?).await?;
    assert_eq!(idle.hears().await?, Notice::Connected);
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()));
    assert_eq!(idle.consumer.fetch(&shard(), 5).await?.taken, 1);
    commit(&system, tenant, 1).await?;
    idle.is_granted().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_is_granted_the_first_job_of_a_newly_active() -> Result<()> {
    let (system, tenant, newly_active, mut busy) = busy_scene().await?;
    busy.takes(2, Welcome::Next).await?;
    commit(&system, newly_active[0], 1).await?;
    assert_eq!(busy.hears().await?, Notice::NewlyActive(shard()), "the worker has no free permit");
    busy.takes(2, Welcome::NextAndNewlyActive).await?;
    commit(&system, tenant, 1).await?;
    // At most one notification about newly active tenants is published in 5 ms.
    sleep(Duration::from_millis(20)).await;
    let id = commit(&system, newly_active[1], 1).await?[0];
    let grant = busy.is_granted().await?;
    let lease = busy.consumer.take(&[(shard(), grant)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    assert_eq!((lease.id, lease.tenant), (id, newly_active[1]), "tenants that already had work cause no notification");
    Ok(())
}

/// A worker's reserved permits are for newly active tenants: see `worker/src/slots.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn for_newly_active_alone_only_tenants_with_nothing_running_are_leased_one_job_each() -> Result<()> {
    let (system, tenant, newly_active, mut busy) = busy_scene().await?;
    busy.takes(2, Welcome::Next).await?;
    commit(&system, newly_active[0], 3).await?;
    assert_eq!(busy.hears().await?, Notice::NewlyActive(shard()));
    let leases = busy.wants_newly_active().await?.leases;
    assert_eq!(leases.iter().map(|lease| lease.tenant).collect::<Vec<_>>(), [newly_active[0]]);
    let nothing = busy.wants_newly_active().await?;
    assert_eq!((nothing.taken, nothing.next), (0, None), "both tenants have running jobs");
    // No worker is idle, so jobs of tenants that already have work cause neither a notification nor
    // a direct dispatch.
    commit(&system, tenant, 1).await?;
    commit(&system, newly_active[0], 1).await?;
    sleep(Duration::from_millis(20)).await;
    let id = commit(&system, newly_active[1], 2).await?[0];
    let grant = busy.is_granted().await?;
    let granted = busy.consumer.take(&[(shard(), grant)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    assert_eq!((granted.id, granted.tenant), (id, newly_active[1]));
    system.index.settle(&shard(), &[leases[0].release()]).await?;
    assert_eq!(busy.wants_newly_active().await?.taken, 1);
    Ok(())
}

/// Otherwise the tenant with the least virtual time would be served first.
#[tokio::test(flavor = "multi_thread")]
async fn an_offer_to_newly_active_alone_is_not_for_who_has_something_running() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut busy = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    busy.is_granted().await?;
    assert_eq!(busy.wants_newly_active().await?.taken, 0);
    commit(&system, tenant, 1).await?;
    assert_eq!(busy.hears().await?, Notice::Wake(shard()), "the job is not dispatched directly");
    let newly_active = system.tenant("newly_active").await?;
    let first = commit(&system, newly_active, 1).await?[0];
    let grant = busy.is_granted().await?;
    assert_eq!(grant.job(), first);
    // Such a tenant is announced at most once in 5 ms, and only while nothing of it waits; a worker
    // that takes only newly active tenants must not miss it.
    let second = commit(&system, newly_active, 1).await?[0];
    let lease = busy.consumer.take(&[(shard(), grant)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    system.index.settle(&shard(), &[Settlement { again: None, ..lease.release() }]).await?;
    let taken = busy.wants_newly_active().await?.leases;
    assert_eq!(taken.iter().map(|lease| lease.id).collect::<Vec<_>>(), [second]);
    system.index.settle(&shard(), &[taken[0].release()]).await?;
    commit(&system, newly_active, 1).await?;
    let granted = loop {
        match busy.hears().await? {
            Notice::Granted(_, grant) => break grant.job(),
            other => assert_eq!(other, Notice::NewlyActive(shard()), "about the second job"),
        }
    };
    assert_eq!(granted, second, "the tenant has a waiting job and none running");
    Ok(())
}

/// A busy worker never replaces an idle worker's ready mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_does_not_offer_in_place_of_an_idle_one() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut busy = Idle::start(&system, LEASE).await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let mut soon = system.job(tenant, "noop", &json!({}));
    let run_at = system.clock.now() + Duration::from_millis(300);
    soon.run_at = Some(run_at);
    system.enqueue(vec![soon]).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "a job is due soon");
    idle.finds_nothing().await?;
    eventually(PATIENCE, "the job is due", async || (system.clock.now() > run_at).then_some(())).await;
    sleep(Duration::from_millis(20)).await;
    busy.takes(1, Welcome::NextAndNewlyActive).await?;
    commit(&system, tenant, 1).await?;
    idle.is_granted().await?;
    assert_eq!(busy.hears().await?, Notice::Wake(shard()), "only about the job that was due soon");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_start_is_not_granted() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let (mut connection, root) = (redis(&system).await?, root(&system));
    let mut set = async |key: &str, field: &[u8], value: &str| -> Result<()> {
        let mut command = redis::cmd("HSET");
        Ok(command.arg(format!("{root}:{key}")).arg(field).arg(value).query_async(&mut connection).await?)
    };
    set("meta", b"paused", "1").await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "the queue is paused");
    set("meta", b"paused", "0").await?;
    assert_eq!(idle.consumer.fetch(&shard(), 2).await?.taken, 1);
    // Weight, cap, rate, burst, paused: one job runs already.
    set("limits", tenant.as_uuid().as_bytes(), "1 1 0 0 0").await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()), "the tenant is at its cap");
    assert_eq!(leased(&system).await?, 1);
    Ok(())
}

/// A real worker: jobs that arrive while it is idle are dispatched to it directly. It also works
/// without these notifications, and removes its ready mark when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_granted_jobs_and_works_without_hearing_of_them() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    indexed(&system, 0).await;
    let mut overheard = redis::Client::open(system.redis_url.as_str())?.get_async_pubsub().await?;
    overheard.psubscribe(format!("{}:*:granted:*", system.prefix)).await?;
    let worker = system.worker(2, LEASE);
    eventually(PATIENCE, "subscribed", async || (!granted_channels(&system).await.ok()?.is_empty()).then_some(()))
        .await;
    // The worker polls twice a second; after that its ready mark is set.
    sleep(OFFERED).await;
    let id = commit(&system, tenant, 1).await?[0];
    reaches(&system, tenant, id, "completed").await;
    let message = timeout(PATIENCE, overheard.on_message().next()).await?.context("the job was dispatched directly")?;
    assert_eq!(&message.get_payload_bytes()[8..24], id.as_bytes());

    // This also disconnects the test's own subscription.
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec_async(&mut redis(&system).await?).await?;
    let ids = commit(&system, tenant, 10).await?;
    for id in ids {
        reaches(&system, tenant, id, "completed").await;
    }
    worker.stop().await?;
    commit(&system, tenant, 1).await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

/// A direct dispatch from before an exclusive run is released while that run lasts, and the job
/// waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_beside_a_last_chance_is_given_back() -> Result<()> {
    let (system, tenant) = scene().await?;
    let sink = HttpSink::start().await?;
    sink.set("suspect", Behaviour::Hang);
    let worker = system.worker(2, LEASE);
    let root = root(&system);
    let subscription = async || {
        let channels = granted_channels(&system).await.ok()?;
        channels.iter().find_map(|channel| Some(channel.strip_prefix(&root)?.strip_prefix(":granted:")?.to_owned()))
    };
    let subscription = eventually(PATIENCE, "the worker is subscribed", subscription).await;
    let suspect = callback(&system, tenant, &sink, "suspect");
    enqueue_suspect(&system, &suspect).await?;
    sink.wait_for("suspect", PATIENCE).await;

    let until_ms = (system.clock.now() + PATIENCE).timestamp_millis();
    let (meta, mut command) = (format!("{root}:meta"), redis::cmd("HSET"));
    command
        .arg(&meta)
        .arg("idle")
        .arg("1")
        .arg("offer")
        .arg(format!("{subscription} {} {until_ms} 8 bytes.", LEASE.as_millis()));
    command.exec_async(&mut redis(&system).await?).await?;
    let id = commit(&system, tenant, 1).await?[0];
    let left = async || {
        let mut connection = redis(&system).await.ok()?;
        let offers: bool = redis::cmd("HEXISTS").arg(&meta).arg("offer").query_async(&mut connection).await.ok()?;
        (!offers && leased(&system).await.ok()? == 1).then_some(())
    };
    eventually(PATIENCE, "the job was dispatched directly and released", left).await;
    assert_eq!(system.index.depth(&queue()).await?.available, 1);
    sink.release("suspect");
    reaches(&system, tenant, id, "completed").await;
    worker.stop().await
}

/// The channels of direct dispatches that have a subscriber.
pub(super) async fn granted_channels(system: &TestSystem) -> Result<Vec<String>> {
    let mut command = redis::cmd("PUBSUB");
    command.arg("CHANNELS").arg(format!("{}:*:granted:*", system.prefix));
    Ok(command.query_async(&mut redis(system).await?).await?)
}

pub(super) async fn indexed_and_free(system: &TestSystem, jobs: u64) {
    eventually(PATIENCE, "the jobs wait and none is leased", async || {
        let depth = system.index.depth(&queue()).await.ok()?;
        (depth.available == jobs && leased(system).await.ok()? == 0).then_some(())
    })
    .await;
}
