//! SIGTERM: jobs that have not started are released at once, running ones finish, and the process
//! exits successfully.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use sqlx::Connection as _;
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use crate::queue::support::{LEASE, Ledger, PATIENCE, callback, indexed, leased, queue, reaches, worker_process};

const JOBS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn unstarted_jobs_are_released_and_running_ones_finish() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("running", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    indexed(&system, 0).await;
    let mut leaving = worker_process(&system, 1, LEASE)?;
    // Short jobs make the worker fetch ahead of its only slot.
    system.enqueue((0..200).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    let mut ledger = Ledger::open(&system).await?;
    ledger.completed(200).await;
    let running = system.enqueue(vec![callback(&system, tenant, &sink, "running")]).await?[0];
    sink.wait_for("running", PATIENCE).await;
    system.enqueue((0..JOBS).map(|at| callback(&system, tenant, &sink, &at.to_string())).collect()).await?;
    let leased = async || system.index.status(&queue()).await.map(|status| status.leased).ok();
    eventually(PATIENCE, "unstarted jobs are held", async || (leased().await? > 1).then_some(())).await;

    let told = Instant::now();
    leaving.sigterm()?;
    eventually(PATIENCE, "the worker holds only its running job", async || (leased().await? == 1).then_some(())).await;
    assert!(told.elapsed() < LEASE / 2, "no lease had to run out");
    let staying = system.worker(4, LEASE);
    sink.wait_total(JOBS + 1, PATIENCE).await;
    sink.release("running");
    assert_eq!(leaving.wait_exit(PATIENCE).await?.code(), Some(0));
    assert_eq!(reaches(&system, tenant, running, "completed").await.attempt, 1);
    assert_eq!(ledger.completed(221).await, 221, "releasing costs no attempt");
    let tokens = sink.tokens();
    assert!(tokens.len() == JOBS + 1 && tokens.values().all(|count| *count == 1), "{tokens:?}");
    staying.stop().await?;
    scheduler.stop().await;
    Ok(())
}

/// A run that outlasts the grace is cut short and released: another worker repeats it in the same
/// attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_beyond_the_grace_period_is_released() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("long", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let first = system.worker(1, LEASE);
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "long")]).await?[0];
    sink.wait_for("long", PATIENCE).await;
    let told = Instant::now();
    first.stop().await?;
    assert!(told.elapsed() < Duration::from_secs(20), "the grace of a test's worker is 5 s");
    let second = system.worker(1, LEASE);
    sink.wait_for_count("long", 2, LEASE / 2).await;
    sink.release("long");
    assert_eq!(reaches(&system, tenant, id, "completed").await.attempt, 1);
    second.stop().await
}

/// The stop arrives after a fetch has leased jobs and before PostgreSQL has returned their rows.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_being_leased_at_the_stop_are_released() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    let ids = system.enqueue((0..3).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    indexed(&system, 3).await;
    scheduler.stop().await;
    let mut ledger = Ledger::open(&system).await?;
    let mut lock = ledger.0.begin().await?;
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut *lock).await?;
    let worker = system.worker(3, LEASE);
    leased(&system, ids[0]).await;
    let stopping = tokio::spawn(worker.stop());
    // A worker that does not wait for its fetch has exited by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    lock.rollback().await?;
    stopping.await??;
    let jobs: Vec<_> = ids.iter().map(|id| (*id, tenant)).collect();
    assert_eq!(system.index.leased(&queue(), &jobs).await?, [false; 3], "no job waits for its lease to expire");
    indexed(&system, 3).await;
    Ok(())
}
