//! A leader that dies during a rebuild: the next one starts the rebuild over; meanwhile workers
//! wait or work.

use anyhow::Result;
use serde_json::json;
use shared::queue::{IndexState, repair::reconcile::PAGE};
use tests::system::TestSystem;

use super::is_killed;
use crate::queue::support::{LEASE, Ledger, queue, scheduler_spec};

async fn survives(point: &str, left: impl Fn(IndexState, bool) -> bool) -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let jobs = PAGE + 500;
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    let mut leader = scheduler_spec(&system)?.env("ROTA_FAULT", format!("{point}:1:kill")).start()?;
    is_killed(&mut leader).await?;
    let status = system.index.status(&queue()).await?;
    assert!(left(status.state, status.complete), "the leader was killed elsewhere: {status:?}");

    let (scheduler, worker) = (system.scheduler(), system.worker(50, LEASE));
    let once = Ledger::open(&system).await?.completed(jobs).await;
    assert_eq!(once, jobs, "every job took one attempt");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_index_is_empty_the_next_leader_builds_it() -> Result<()> {
    // The queues are rebuilt in parallel, so the leader may have been killed just after another one
    // was cleared.
    survives("rebuild_after_clear", |state, complete| state != IndexState::Ready && !complete).await
}

/// Half an index looks ready to workers, but the next leader does not take it for complete.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_two_pages_the_next_leader_starts_the_rebuild_over() -> Result<()> {
    survives("rebuild_between_pages", |state, complete| state == IndexState::Ready && !complete).await
}
