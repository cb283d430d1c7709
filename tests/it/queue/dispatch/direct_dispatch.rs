//! Direct dispatch: a worker with an unfilled fetch gets the next job leased by the push that adds
//! it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use serde_json::json;
use shared::queue::{Notice, Priority, dispatch::Consumer};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};
use tokio::time::{sleep, timeout};

use crate::queue::support::{
    LEASE, PATIENCE,
    bare_engine::{Idle, commit, indexed_and_free, leased_count, scene},
    callback, enqueue_suspect, indexed, queue, reaches, redis, root, shard, virtual_time,
};

/// Twice the time after which a worker polls again on its own.
const OFFERED: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_gets_the_next_job_without_a_fetch() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let id = commit(&system, tenant, 1).await?[0];
    let dispatch = idle.direct_dispatch().await?;
    assert_eq!(other.fetch(&shard(), 1).await?.taken, 0, "the job is leased");
    let mut fetched = idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?;
    let lease = fetched.leases.pop().context("the job waited when its row was read")?;
    assert_eq!((lease.id, lease.tenant, lease.attempt), (id, tenant, 1));
    system.index.settle(&shard(), &[lease.release()]).await?;
    assert_eq!(leased_count(&system).await?, 0);
    assert_eq!(system.index.depth(&queue()).await?.available, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_mark_is_used_once_and_for_one_job() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    idle.direct_dispatch().await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()));
    assert_eq!(idle.consumer.fetch(&shard(), 5).await?.taken, 1);
    // That fetch has set the ready mark again.
    commit(&system, tenant, 3).await?;
    idle.direct_dispatch().await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "two more jobs wait, so all workers are notified");
    assert_eq!(leased_count(&system).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dispatch_returns_the_job_and_costs_nothing() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let mut job = system.job(tenant, "noop", &json!({}));
    job.priority = Priority::new(1).context("the first")?;
    let id = system.enqueue(vec![job]).await?[0];
    let dispatch = idle.direct_dispatch().await?;
    assert!(virtual_time(&system, tenant).await? > 0.0, "a lease is charged an estimate");
    idle.consumer.refuse(&shard(), &dispatch).await?;
    assert_eq!(leased_count(&system).await?, 0);
    assert!(virtual_time(&system, tenant).await?.abs() < 1e-9, "the estimate is refunded");
    let again = idle.consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits again")?;
    assert_eq!((again.id, again.priority.get(), again.attempt), (id, 1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_receives_earlier_dispatches() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    let dispatched = async || (leased_count(&system).await.ok()? == 1).then_some(());
    eventually(PATIENCE, "the job is dispatched directly", dispatched).await;
    // The script that leases the job publishes the message, so it has arrived or is in flight.
    let Some(Notice::Dispatched(_, dispatch)) = idle.stop().await else { panic!("the direct dispatch is lost") };
    assert_eq!(idle.stop().await, None);
    idle.consumer.refuse(&shard(), &dispatch).await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

/// A worker that has disconnected, left the queue or not polled for too long gets nothing: the job
/// waits for any worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_ready_mark_of_an_absent_worker_is_not_used() -> Result<()> {
    let (system, tenant) = scene().await?;
    let Idle { notices, .. } = Idle::start(&system, LEASE).await?;
    drop(notices);
    eventually(PATIENCE, "Redis has noticed", async || dispatch_channels(&system).await.ok()?.is_empty().then_some(()))
        .await;
    commit(&system, tenant, 1).await?;
    indexed_and_free(&system, 1).await;

    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    assert_eq!(other.fetch(&shard(), 1).await?.taken, 1);
    let mut idle = Idle::start(&system, LEASE).await?;
    system.index.leave(&queue(), idle.process, 1).await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "the worker has left the queue");

    assert_eq!(idle.consumer.fetch(&shard(), 2).await?.taken, 1);
    // A ready mark expires, because its worker may be frozen.
    sleep(OFFERED + Duration::from_millis(100)).await;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "the worker has not polled again");
    assert_eq!(leased_count(&system).await?, 2);
    Ok(())
}

/// A ready mark names one connection, so a mark set before a restart of Redis is void after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_ready_mark_is_void_when_its_connection_is_lost() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec_async(&mut redis(&system).await?).await?;
    assert_eq!(idle.next_notice().await?, Notice::Connected);
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()));
    assert_eq!(idle.consumer.fetch(&shard(), 5).await?.taken, 1);
    commit(&system, tenant, 1).await?;
    idle.direct_dispatch().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_may_not_start_is_not_dispatched() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let (mut connection, root) = (redis(&system).await?, root(&system));
    let mut set = async |key: &str, field: &[u8], value: &str| -> Result<()> {
        let mut command = redis::cmd("HSET");
        Ok(command.arg(format!("{root}:{key}")).arg(field).arg(value).query_async(&mut connection).await?)
    };
    set("meta", b"paused", "1").await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "the queue is paused");
    set("meta", b"paused", "0").await?;
    assert_eq!(idle.consumer.fetch(&shard(), 2).await?.taken, 1);
    // Weight, cap, rate, burst, paused: one job runs already.
    set("limits", tenant.as_uuid().as_bytes(), "1 1 0 0 0").await?;
    commit(&system, tenant, 1).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "the tenant is at its cap");
    assert_eq!(leased_count(&system).await?, 1);
    Ok(())
}

/// A real worker: jobs that arrive while it is idle are dispatched to it directly. It also works
/// without these notifications, and removes its ready mark when it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_receives_direct_dispatches_and_works_without_them() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    indexed(&system, 0).await;
    let mut overheard = redis::Client::open(system.redis_url.as_str())?.get_async_pubsub().await?;
    overheard.psubscribe(format!("{}:*:dispatched:*", system.prefix)).await?;
    let worker = system.worker(2, LEASE);
    eventually(PATIENCE, "subscribed", async || (!dispatch_channels(&system).await.ok()?.is_empty()).then_some(()))
        .await;
    let ready = async || has_ready_mark(&system).await.ok()?.then_some(());
    eventually(PATIENCE, "the worker has polled and set its ready mark", ready).await;
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
async fn a_direct_dispatch_during_an_exclusive_run_is_released() -> Result<()> {
    let (system, tenant) = scene().await?;
    let sink = HttpSink::start().await?;
    sink.set("suspect", Behaviour::Hang);
    let worker = system.worker(2, LEASE);
    let root = root(&system);
    let subscription = async || {
        let channels = dispatch_channels(&system).await.ok()?;
        channels.iter().find_map(|channel| Some(channel.strip_prefix(&root)?.strip_prefix(":dispatched:")?.to_owned()))
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
        .arg("ready_mark")
        .arg(format!("{subscription} {} {until_ms} 8 bytes.", LEASE.as_millis()));
    command.exec_async(&mut redis(&system).await?).await?;
    let id = commit(&system, tenant, 1).await?[0];
    let left = async || (!has_ready_mark(&system).await.ok()? && leased_count(&system).await.ok()? == 1).then_some(());
    eventually(PATIENCE, "the job was dispatched directly and released", left).await;
    assert_eq!(system.index.depth(&queue()).await?.available, 1);
    sink.release("suspect");
    reaches(&system, tenant, id, "completed").await;
    worker.stop().await
}

/// Whether a worker has marked itself ready for the next job.
async fn has_ready_mark(system: &TestSystem) -> Result<bool> {
    let mut command = redis::cmd("HEXISTS");
    command.arg(format!("{}:meta", root(system))).arg("ready_mark");
    Ok(command.query_async(&mut redis(system).await?).await?)
}

/// The channels of direct dispatches that have a subscriber.
async fn dispatch_channels(system: &TestSystem) -> Result<Vec<String>> {
    let mut command = redis::cmd("PUBSUB");
    command.arg("CHANNELS").arg(format!("{}:*:dispatched:*", system.prefix));
    Ok(command.query_async(&mut redis(system).await?).await?)
}
