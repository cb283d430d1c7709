//! Workers that are killed, killed repeatedly by the same job, or frozen until they are taken for
//! dead.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tests::{
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use crate::queue::support::{Ledger, PATIENCE, callback, enqueue_suspect, errors, indexed, reaches, worker_process};

const LEASE: Duration = Duration::from_secs(2);
/// On top of the lease: detection by the rescuer, its tick, the start of the run, and a slow
/// machine.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_killed_worker_runs_again_and_others_are_unaffected() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("victim", Behaviour::Hang);
    sink.set("bystander", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let mut doomed = worker_process(&system, 1, LEASE)?;
    let victim = system.enqueue(vec![callback(&system, tenant, &sink, "victim")]).await?[0];
    sink.wait_for("victim", PATIENCE).await;
    let survivor = system.worker(2, LEASE);
    let bystander = system.enqueue(vec![callback(&system, tenant, &sink, "bystander")]).await?[0];
    sink.wait_for("bystander", PATIENCE).await;

    doomed.kill9().await?;
    let killed = Instant::now();
    sink.wait_for_count("victim", 2, LEASE + SOON).await;
    assert!(killed.elapsed() > LEASE / 4, "its death cannot be detected at once");
    sink.release("victim");
    sink.release("bystander");
    let job = reaches(&system, tenant, victim, "completed").await;
    assert_eq!(errors(&job), ["the worker was lost: it crashed, was killed, or did not renew its lease"]);
    reaches(&system, tenant, bystander, "completed").await;
    let mut ledger = Ledger::open(&system).await?;
    let (victim, bystander) = (ledger.row(victim).await?, ledger.row(bystander).await?);
    assert_eq!(victim.attempt, 2);
    assert_eq!(victim.failures, 0);
    assert_eq!(victim.crashes, 1);
    assert_eq!(bystander.attempt, 1);
    assert_eq!(bystander.failures, 0);
    assert_eq!(bystander.crashes, 0);
    assert_eq!(sink.count("victim"), 2);
    assert_eq!(sink.count("bystander"), 1);
    survivor.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_three_workers_is_poison_and_its_neighbours_are_not() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut jobs: Vec<_> = (0..4).map(|_| system.job(tenant, "sleep", &json!({ "ms": 300 }))).collect();
    jobs.insert(0, system.job(tenant, "abort", &json!({})));
    let ids = system.enqueue(jobs).await?;
    let _scheduler = system.scheduler();
    indexed(&system, 5).await;
    // As many slots as jobs: the other jobs are in the process whenever it dies.
    let mut worker = worker_process(&system, 5, LEASE)?;
    for _ in 0..3 {
        let status = worker.wait_exit(PATIENCE).await?;
        assert!(!status.success());
        worker.restart().await?;
    }
    let poison = reaches(&system, tenant, ids[0], "discarded").await;
    let errors = errors(&poison);
    assert_eq!(errors.len(), 3);
    assert!(errors[2].starts_with("poison: "), "{errors:?}");
    for id in &ids[1..] {
        reaches(&system, tenant, *id, "completed").await;
    }
    worker.sigterm()?;
    assert_eq!(worker.wait_exit(PATIENCE).await?.code(), Some(0));
    Ok(())
}

/// Before an exclusive run the worker leaves no other job in the process, but jobs that already run
/// may still kill it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_quarantine_is_not_charged_for_the_crash_of_another() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("killer", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let mut worker = worker_process(&system, 2, LEASE)?;
    let killer = system.enqueue(vec![callback(&system, tenant, &sink, "killer")]).await?[0];
    sink.wait_for("killer", PATIENCE).await;
    let bystander = system.job(tenant, "noop", &json!({}));
    let id = bystander.id;
    enqueue_suspect(&system, &bystander).await?;
    reaches(&system, tenant, id, "running").await;
    // Time for the job to get from its lease to the point where it waits for its exclusive run.
    tokio::time::sleep(LEASE / 4).await;

    worker.kill9().await?;
    worker.restart().await?;
    sink.wait_for_count("killer", 2, LEASE + SOON).await;
    sink.release("killer");
    reaches(&system, tenant, killer, "completed").await;
    let job = reaches(&system, tenant, id, "completed").await;
    assert_eq!(errors(&job), ["the worker was lost: it crashed, was killed, or did not renew its lease"]);
    let row = Ledger::open(&system).await?.row(id).await?;
    assert_eq!(row.attempt, 2);
    assert_eq!(row.crashes, 2);
    worker.sigterm()?;
    assert_eq!(worker.wait_exit(PATIENCE).await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombies_late_finish_changes_nothing() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("contested", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let mut zombie = worker_process(&system, 1, LEASE)?;
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "contested")]).await?[0];
    sink.wait_for("contested", PATIENCE).await;
    zombie.sigstop()?;

    let other = system.worker(1, LEASE);
    sink.wait_for_count("contested", 2, LEASE + SOON).await;
    // Both runs get a response; the zombie's waits in its socket.
    sink.release("contested");
    reaches(&system, tenant, id, "completed").await;
    other.stop().await?;
    let mut ledger = Ledger::open(&system).await?;
    let finished = ledger.row(id).await?;
    assert_eq!(finished.attempt, 2);
    assert_eq!(finished.crashes, 1);

    zombie.sigcont()?;
    // The zombie's only slot takes another job only after the late run has ended.
    let next = system.enqueue(vec![callback(&system, tenant, &sink, "next")]).await?[0];
    reaches(&system, tenant, next, "completed").await;
    zombie.sigterm()?;
    assert_eq!(zombie.wait_exit(PATIENCE).await?.code(), Some(0));
    assert_eq!(ledger.row(id).await?, finished, "the row was not written again");
    assert_eq!(sink.count("contested"), 2);
    Ok(())
}
