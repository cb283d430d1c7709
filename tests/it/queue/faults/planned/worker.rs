//! A worker that dies between lease and read, effect and finish, ledger and index.

use anyhow::Result;
use shared::{
    queue::{NewJob, ledger::relations::Relations},
    tenancy::TenantId,
};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};
use uuid::Uuid;

use super::{LEASE, is_killed};
use crate::queue::support::{self, Ledger, PATIENCE, callback, indexed, reaches, worker_spec};

struct Scene {
    system: TestSystem,
    sink: HttpSink,
    tenant: TenantId,
    id: Uuid,
}

/// One job, in the index before any worker starts.
async fn scene() -> Result<Scene> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    let tenant = system.tenant("acme").await?;
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "effect")]).await?[0];
    Ok(Scene { system, sink, tenant, id })
}

/// What a job has cost when it is completed.
#[derive(Debug, PartialEq, Eq)]
struct Completed {
    effects: usize,
    attempt: i32,
    crashes: i16,
}

/// The completed job, once another worker has replaced the one killed at this point.
async fn after_kill(point: &str) -> Result<Completed> {
    let scene = scene().await?;
    let _scheduler = scene.system.scheduler();
    indexed(&scene.system, 1).await;
    let fault = format!("{point}:1:kill");
    let mut doomed = worker_spec(&scene.system, 1, LEASE)?.env("ROTA_FAULT", fault).start()?;
    is_killed(&mut doomed).await?;
    let heir = scene.system.worker(1, LEASE);
    reaches(&scene.system, scene.tenant, scene.id, "completed").await;
    support::unleased(&scene.system, scene.id).await;
    heir.stop().await?;
    let row = Ledger::open(&scene.system).await?.row(scene.id).await?;
    Ok(Completed { effects: scene.sink.count("effect"), attempt: row.attempt, crashes: row.crashes })
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_lease_and_read_the_job_runs_once() -> Result<()> {
    let expected = Completed { effects: 1, attempt: 2, crashes: 1 };
    assert_eq!(after_kill("after_lease_before_read").await?, expected);
    Ok(())
}

/// The only case in which a plain effect is repeated: nothing else records that it happened.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_effect_and_finish_the_effect_is_repeated_once() -> Result<()> {
    let expected = Completed { effects: 2, attempt: 2, crashes: 1 };
    assert_eq!(after_kill("after_effect_before_finish").await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_ledger_and_index_the_job_does_not_run_again() -> Result<()> {
    let expected = Completed { effects: 1, attempt: 1, crashes: 0 };
    assert_eq!(after_kill("after_ledger_before_settle").await?, expected);
    Ok(())
}

/// The ledger fails just when rows are read: the leases are released at once, and no attempt is
/// used.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_between_lease_and_read_costs_no_attempt() -> Result<()> {
    let scene = scene().await?;
    let _scheduler = scene.system.scheduler();
    indexed(&scene.system, 1).await;
    let worker = worker_spec(&scene.system, 1, support::LEASE)?;
    let _worker = worker.env("ROTA_FAULT", "after_lease_before_read:1:error").start()?;
    reaches(&scene.system, scene.tenant, scene.id, "completed").await;
    let row = Ledger::open(&scene.system).await?.row(scene.id).await?;
    assert_eq!(scene.sink.count("effect"), 1);
    assert_eq!(row.attempt, 1);
    assert_eq!(row.crashes, 0);
    Ok(())
}

/// A worker that is alive but never reads its leases does not renew them, so it loses the job like
/// a dead one.
#[tokio::test(flavor = "multi_thread")]
async fn hung_between_lease_and_read_the_job_runs_in_another_worker() -> Result<()> {
    let scene = scene().await?;
    let _scheduler = scene.system.scheduler();
    indexed(&scene.system, 1).await;
    let worker = worker_spec(&scene.system, 1, LEASE)?;
    let _hung = worker.env("ROTA_FAULT", "after_lease_before_read:1:hang").start()?;
    support::leased(&scene.system, scene.id).await;
    let heir = scene.system.worker(1, LEASE);
    reaches(&scene.system, scene.tenant, scene.id, "completed").await;
    heir.stop().await?;
    let row = Ledger::open(&scene.system).await?.row(scene.id).await?;
    assert_eq!(scene.sink.count("effect"), 1);
    assert_eq!(row.attempt, 2);
    assert_eq!(row.crashes, 1);
    Ok(())
}

/// The end of a run that will be retried is in the ledger, and the reply to the worker is lost: no
/// crash is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_whose_reply_was_lost_costs_no_crash() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let worker = worker_spec(&system, 1, LEASE)?.env("ROTA_FAULT", "after_end_before_its_reply:1:error").start()?;
    let id = system.enqueue(vec![system.job(tenant, "fail", &serde_json::json!({ "times": 1 }))]).await?[0];
    reaches(&system, tenant, id, "completed").await;
    let row = Ledger::open(&system).await?.row(id).await?;
    assert_eq!(row.attempt, 2, "{}", worker.output()?);
    assert_eq!(row.failures, 1, "{}", worker.output()?);
    assert_eq!(row.crashes, 0, "{}", worker.output()?);
    Ok(())
}

/// Only the ledger records the jobs released and cancelled by another job's end: the dependent runs
/// once, although the sweep has passed its row long before.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_announcing_a_follow_up_the_dependent_runs() -> Result<()> {
    let scene = scene().await?;
    scene.sink.set("effect", Behaviour::Hang);
    let (system, tenant) = (&scene.system, scene.tenant);
    let waits = Relations { after: vec![scene.id], ..Relations::default() };
    let dependent = NewJob { relations: Some(Box::new(waits)), ..callback(system, tenant, &scene.sink, "dependent") };
    let dependent = system.enqueue(vec![dependent]).await?[0];
    let _scheduler = system.scheduler();
    indexed(system, 1).await;
    let fault = "after_follow_up_before_announcement:1:kill";
    let mut doomed = worker_spec(system, 1, LEASE)?.env("ROTA_FAULT", fault).start()?;
    scene.sink.wait_for("effect", PATIENCE).await;
    swept(system, dependent).await;
    scene.sink.release("effect");
    is_killed(&mut doomed).await?;
    assert_eq!(scene.sink.count("dependent"), 0);
    let mut ledger = Ledger::open(system).await?;
    assert_eq!(
        (ledger.row(scene.id).await?.state, ledger.row(dependent).await?.state),
        ("completed".into(), "available".into())
    );
    let heir = system.worker(1, LEASE);
    reaches(system, tenant, dependent, "completed").await;
    heir.stop().await?;
    let row = ledger.row(dependent).await?;
    assert_eq!(scene.sink.count("effect"), 1);
    assert_eq!(scene.sink.count("dependent"), 1);
    // If the job was dispatched to the worker in the moment of its death, a rescue raised the attempt.
    assert_eq!(row.attempt, 1 + i32::from(row.crashes));
    assert!(row.crashes <= 1, "{} crashes", row.crashes);
    Ok(())
}

/// Waits until the sweep of new rows has passed this one.
async fn swept(system: &TestSystem, id: Uuid) {
    eventually(PATIENCE, "the sweep has passed", async || {
        let old = "select inserted_at < now() - interval '5 seconds' from jobs where id = $1";
        let old = sqlx::query_scalar::<_, bool>(old).bind(id).fetch_one(&mut Ledger::open(system).await.ok()?.0).await;
        old.ok()?.then_some(())
    })
    .await;
}
