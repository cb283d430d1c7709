//! A leader that dies after raising the attempts in the ledger and before updating the index.

use anyhow::Result;
use tests::{
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use super::{LEASE, is_killed};
use crate::queue::support::{Ledger, PATIENCE, callback, reaches, scheduler_spec, worker_process};

/// The next leader repeats the rescue. That counts the crash a second time, the price of updating
/// the ledger first; the job runs again nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rescue_is_repeated() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("effect", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let mut leader = scheduler_spec(&system)?.env("ROTA_FAULT", "rescue_after_ledger:1:kill").start()?;
    let mut worker = worker_process(&system, 1, LEASE)?;
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "effect")]).await?[0];
    sink.wait_for("effect", PATIENCE).await;
    worker.kill9().await?;
    is_killed(&mut leader).await?;
    let mut ledger = Ledger::open(&system).await?;
    let between = ledger.row(id).await?;
    assert_eq!(between.attempt, 2);
    assert_eq!(between.crashes, 1, "the ledger was updated");

    let (_scheduler, heir) = (system.scheduler(), system.worker(1, LEASE));
    sink.wait_for_count("effect", 2, PATIENCE).await;
    sink.release("effect");
    reaches(&system, tenant, id, "completed").await;
    heir.stop().await?;
    let row = ledger.row(id).await?;
    assert_eq!(sink.count("effect"), 2);
    assert_eq!(row.attempt, 3);
    assert_eq!(row.crashes, 2);
    Ok(())
}
