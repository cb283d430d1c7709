//! Several scheduler processes, of which the leader is frozen or killed: another takes over, and
//! the old leader changes nothing when it resumes.

use std::time::Duration;

use anyhow::Result;
use tests::{
    eventually::eventually,
    free_port::free_port,
    http_sink::{Behaviour, HttpSink},
    process::ProcessUnderTest,
    system::TestSystem,
};

use crate::queue::support::{Ledger, PATIENCE, callback, indexed, reaches, scheduler_spec, worker_process};

const LEASE: Duration = Duration::from_secs(2);

struct Scheduler {
    process: ProcessUnderTest,
    port: u16,
}

impl Scheduler {
    async fn start(system: &TestSystem) -> Result<Self> {
        let port = free_port()?;
        let mut process = scheduler_spec(system)?.env("METRICS_PORT", port.to_string()).start()?;
        process.wait_ready(&format!("http://127.0.0.1:{port}/api/health/readiness"), PATIENCE).await?;
        Ok(Self { process, port })
    }

    async fn leads(&self) -> Option<bool> {
        let asked = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build().ok()?;
        let metrics =
            asked.get(format!("http://127.0.0.1:{}/metrics", self.port)).send().await.ok()?.text().await.ok()?;
        let line = metrics.lines().find(|line| line.starts_with("rota_scheduler_leader"))?;
        Some(line.ends_with(" 1"))
    }
}

/// Waits until one of the schedulers leads, and returns its number.
async fn leader(schedulers: &[Scheduler], except: Option<usize>) -> usize {
    eventually(PATIENCE, "one of them leads", async || {
        for (number, scheduler) in schedulers.iter().enumerate().filter(|(number, _)| Some(*number) != except) {
            if scheduler.leads().await == Some(true) {
                return Some(number);
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_changes_nothing_when_it_resumes() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("orphan", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let mut schedulers = Vec::new();
    for _ in 0..3 {
        schedulers.push(Scheduler::start(&system).await?);
    }
    let old = leader(&schedulers, None).await;
    indexed(&system, 0).await;
    let mut doomed = worker_process(&system, 1, LEASE)?;
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "orphan")]).await?[0];
    sink.wait_for("orphan", PATIENCE).await;

    schedulers[old].process.sigstop()?;
    doomed.kill9().await?;
    let heir = system.worker(1, LEASE);
    let new = leader(&schedulers, Some(old)).await;
    assert_ne!(new, old);
    sink.wait_for_count("orphan", 2, PATIENCE).await;
    schedulers[old].process.sigcont()?;
    eventually(PATIENCE, "the old leader has noticed its loss of leadership", async || {
        (!schedulers[old].leads().await?).then_some(())
    })
    .await;
    sink.release("orphan");
    reaches(&system, tenant, id, "completed").await;
    let row = Ledger::open(&system).await?.row(id).await?;
    assert_eq!(row.attempt, 2);
    assert_eq!(row.crashes, 1, "the job was rescued exactly once");
    assert_eq!(sink.count("orphan"), 2);
    let terms: i64 =
        sqlx::query_scalar("select term from leadership").fetch_one(&mut Ledger::open(&system).await?.0).await?;
    assert_eq!(terms, 2, "there was exactly one change of leaders");
    heir.stop().await
}

/// Work that needs a leader continues after the deaths of two leaders in a row.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_are_killed_are_replaced() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    let tenant = system.tenant("acme").await?;
    let worker = system.worker(1, LEASE);
    let mut schedulers = Vec::new();
    for _ in 0..3 {
        schedulers.push(Scheduler::start(&system).await?);
    }
    for death in 0..2 {
        let leading = leader(&schedulers, None).await;
        schedulers.remove(leading).process.kill9().await?;
        let job = callback(&system, tenant, &sink, &format!("after death {death}"));
        // The job is not pushed to the index.
        let mut transaction = system.tenants.begin(tenant).await?;
        shared::queue::enqueue::Producer::enqueue_in(&mut transaction, &[job]).await?;
        transaction.commit().await?;
        sink.wait_for(&format!("after death {death}"), PATIENCE).await;
    }
    worker.stop().await?;
    assert!(sink.tokens().values().all(|count| *count == 1), "{:?}", sink.tokens());
    Ok(())
}
