//! Messages between API, Redis, worker and scheduler that arrive late, twice, or after something
//! else has happened.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shared::queue::{
    Settlement, WaitingJob,
    complete::{self, Outcome},
    dispatch::Consumer,
    repair::rescue::RescueReport,
};
use tests::{
    eventually::eventually,
    system::TestSystem,
    tcp_proxy::{Mode, TcpProxy},
};
use tokio::time::sleep;

use crate::queue::support::{
    LEASE, Ledger, PATIENCE,
    bare_engine::{Idle, commit, indexed_and_free, leased_count, rescue_all, scene},
    far_index,
    finishes::finish,
    queue, shard, virtual_time,
};

/// Short enough to wait for its expiry.
const SHORT_LEASE: Duration = Duration::from_millis(600);
/// The response time-out of a consumer behind a proxy.
const ANSWERED: Duration = Duration::from_millis(500);

/// Waits until the only lease has expired, and rescues its job.
async fn rescue_once_expired(system: &TestSystem) {
    let rescued = async || (rescue_all(system).await.ok()?.rescued == 1).then_some(());
    eventually(PATIENCE, "the lease has expired and its job is rescued", rescued).await;
}

/// In the second half of its time a lease may be rescued before the job runs, so it is renewed
/// after the row is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_direct_dispatch_is_renewed_first() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, SHORT_LEASE).await?;
    commit(&system, tenant, 1).await?;
    let dispatch = idle.direct_dispatch().await?;
    // The delay of the message, by which the lease is in the second half of its time.
    sleep(SHORT_LEASE).await;
    let lease = idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.pop().context("still leased")?;
    assert_eq!((lease.attempt, rescue_all(&system).await?), (1, RescueReport::default()), "the lease was renewed");
    assert!(lease.is_own(&system.index).await?);
    Ok(())
}

/// Redis returned its time with the direct dispatch, PostgreSQL its own with the row.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_direct_dispatch_of_a_postponed_job_does_not_start_it() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut ledger = Ledger::open(&system).await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let id = commit(&system, tenant, 1).await?[0];
    let dispatch = idle.direct_dispatch().await?;
    let put_off = "update jobs set run_at = now() + interval '20 s' where id = $1";
    sqlx::query(put_off).bind(id).execute(&mut ledger.0).await?;
    // The delay of the message, which the time until the job is due must not include.
    sleep(Duration::from_secs(1)).await;
    assert!(idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.is_empty(), "the job is not due");
    let next = idle.consumer.fetch(&shard(), 1).await?.next.context("the job is due soon")?;
    let left = "select extract(epoch from run_at - now())::float8 from jobs where id = $1";
    let left: f64 = sqlx::query_scalar(left).bind(id).fetch_one(&mut ledger.0).await?;
    assert!((next.as_secs_f64() - left).abs() < 0.5, "{next:?}, {left} s");
    Ok(())
}

/// The attempt read at that point belongs to the next holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_direct_dispatch_received_after_a_rescue_is_dropped() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, SHORT_LEASE).await?;
    let id = commit(&system, tenant, 1).await?[0];
    let dispatch = idle.direct_dispatch().await?;
    rescue_once_expired(&system).await;
    let dropped = idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?;
    assert_eq!(dropped.taken, 1, "{dropped:?}");
    assert_eq!(dropped.leases.len(), 0, "{dropped:?}");
    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let lease = other.fetch(&shard(), 1).await?.leases.pop().context("the job waits for any worker")?;
    assert_eq!((lease.id, lease.attempt), (id, 2));
    assert!(idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.is_empty(), "another's lease");
    assert!(system.index.leased_in(&shard(), &[id]).await?[0], "a late direct dispatch ends no other lease");
    Ok(())
}

/// A worker that stalled between the fetch and the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_does_not_begin_after_its_lease_was_rescued() -> Result<()> {
    let (system, tenant) = scene().await?;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), SHORT_LEASE);
    commit(&system, tenant, 1).await?;
    indexed_and_free(&system, 1).await;
    let lease = consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits")?;
    assert!(lease.is_own(&system.index).await?, "the lease is young");
    // The stall: the lease has expired and is not rescued yet.
    sleep(SHORT_LEASE).await;
    assert!(lease.is_own(&system.index).await?, "no other worker has the job yet");
    rescue_once_expired(&system).await;
    assert!(!lease.is_own(&system.index).await?);
    Ok(())
}

/// A consumer that reaches Redis through a proxy, with a response time-out of half a second.
async fn far_consumer(system: &TestSystem) -> Result<(Consumer, TcpProxy)> {
    let (index, proxy) = far_index(system, ANSWERED).await?;
    Ok((Consumer::new(system.system.clone(), index, LEASE), proxy))
}

/// A fetch that reaches Redis after its response time-out leases nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_arrives_after_its_time_out_leases_nothing() -> Result<()> {
    let (system, tenant) = scene().await?;
    commit(&system, tenant, 3).await?;
    indexed_and_free(&system, 3).await;
    let (consumer, proxy) = far_consumer(&system).await?;
    assert_eq!(consumer.fetch(&shard(), 0).await?.taken, 0, "the consumer learns the time of Redis");
    proxy.set(Mode::Delay(2 * ANSWERED));
    // Time for the fetch to reach Redis, where it must lease nothing.
    let arrived = sleep(4 * ANSWERED);
    assert!(consumer.fetch(&shard(), 2).await.is_err());
    arrived.await;
    assert_eq!(leased_count(&system).await?, 0);
    proxy.set(Mode::Pass);
    let all = async || (consumer.fetch(&shard(), 3).await.ok()?.leases.len() == 3).then_some(());
    eventually(PATIENCE, "the jobs are leased", all).await;
    Ok(())
}

/// Leases whose response was lost are released once Redis responds again, since no job was started.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_whose_reply_is_lost_costs_no_attempt() -> Result<()> {
    let (system, tenant) = scene().await?;
    let ids = commit(&system, tenant, 3).await?;
    indexed_and_free(&system, 3).await;
    let (consumer, proxy) = far_consumer(&system).await?;
    assert_eq!(consumer.fetch(&shard(), 0).await?.taken, 0, "the connection is open");
    proxy.set(Mode::DropReply);
    assert!(consumer.fetch(&shard(), 2).await.is_err());
    assert_eq!(leased_count(&system).await?, 2);
    proxy.set(Mode::Reset);
    // A mode that is replaced at once might not take effect.
    eventually(PATIENCE, "the connection is gone", async || (proxy.open_connections() == 0).then_some(())).await;
    proxy.set(Mode::Pass);
    let mut got = Vec::new();
    let all = async || {
        got.extend(consumer.fetch(&shard(), 3).await.ok()?.leases);
        (got.len() == 3).then_some(())
    };
    eventually(PATIENCE, "the jobs of the lost response are leased again", all).await;
    assert!(got.iter().all(|lease| lease.attempt == 1 && ids.contains(&lease.id)), "{got:?}");
    Ok(())
}

/// A worker without the job's kind has requeued it for later, which the ledger does not record; a
/// sweep then pushes the job as due.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_does_not_advance_a_postponed_job() -> Result<()> {
    let (system, tenant) = scene().await?;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let id = commit(&system, tenant, 1).await?[0];
    indexed_and_free(&system, 1).await;
    let lease = consumer.fetch(&shard(), 1).await?.leases.pop().context("the job waits")?;
    let later = system.clock.now_ms() + 30_000;
    let put_off = lease.release();
    let again = put_off.again.map(|(_, priority)| (later, priority));
    system.index.settle(&shard(), &[Settlement { again, ..put_off }]).await?;
    let due = WaitingJob { id, tenant, priority: lease.priority, run_at_ms: None };
    system.index.push(&queue(), &[due]).await?;
    assert_eq!(consumer.fetch(&shard(), 1).await?.leases.len(), 0, "the job still waits");
    Ok(())
}

/// A push may reach Redis after the run has ended: the ledger drops the job, at no cost.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_arrives_after_the_run_starts_nothing() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let id = commit(&system, tenant, 1).await?[0];
    let dispatch = idle.direct_dispatch().await?;
    let lease = idle.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.pop().context("dispatched")?;
    let late = WaitingJob { id, tenant, priority: lease.priority, run_at_ms: None };
    system.index.push(&queue(), &[late]).await?;
    system.index.push(&queue(), &[late]).await?;
    assert_eq!(leased_count(&system).await?, 1);
    assert_eq!(system.index.depth(&queue()).await?.available, 0, "the job stays leased");
    complete::record(&system.system, &[finish(&lease, Outcome::Completed { result: None })]).await?;
    let end = Settlement { ran: Some(Duration::from_millis(1)), again: None, ..lease.release() };
    system.index.settle(&shard(), &[end]).await?;
    let charged = virtual_time(&system, tenant).await?;
    idle.finds_nothing().await?;
    system.index.push(&queue(), &[late]).await?;
    let stale = idle.direct_dispatch().await?;
    assert!(idle.consumer.accept(&[(shard(), stale)]).await.remove(0)?.leases.is_empty());
    // A repeated settlement changes nothing.
    system.index.settle(&shard(), &[end]).await?;
    assert_eq!(leased_count(&system).await?, 0);
    assert_eq!(system.index.depth(&queue()).await?.available, 0);
    assert!((virtual_time(&system, tenant).await? - charged).abs() < 1e-9, "a job that did not run costs nothing");
    Ok(())
}
