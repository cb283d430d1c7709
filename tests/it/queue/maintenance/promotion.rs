//! Jobs far in the future stay out of Redis until shortly before they are due.

use std::time::Duration;

use anyhow::Result;
use chrono::DateTime;
use serde_json::json;
use shared::queue::repair::reconcile::Reconciler;
use tests::{eventually::eventually, system::TestSystem};

use crate::queue::support::{LEASE, Ledger, PATIENCE, queue, reaches};

const LOOK_AHEAD: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_beyond_the_look_ahead_is_only_in_the_ledger() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (mut near, mut far) = (system.job(tenant, "noop", &json!({})), system.job(tenant, "noop", &json!({})));
    let far_at = system.clock.now() + LOOK_AHEAD + Duration::from_secs(3);
    near.run_at = Some(system.clock.now() + LOOK_AHEAD / 2);
    far.run_at = Some(far_at);
    // The far job first: once the near one is in the index, the far one could have been, too.
    system.enqueue(vec![far]).await?;
    system.enqueue(vec![near]).await?;
    let due = async || system.index.status(&queue()).await.map(|status| status.due).ok();
    eventually(PATIENCE, "the near job is in the index", async || (due().await? == 1).then_some(())).await;

    let reconciler = Reconciler::new(system.system.clone(), system.index.clone());
    let (reached, promoted) = reconciler.promote(DateTime::UNIX_EPOCH, LOOK_AHEAD).await?;
    if system.clock.now() + LOOK_AHEAD < far_at {
        assert_eq!((promoted, due().await), (1, Some(1)), "the far job is still beyond the look-ahead");
    }
    eventually(PATIENCE, "the far job is promoted", async || {
        reconciler.promote(reached, LOOK_AHEAD).await.ok()?;
        (due().await? == 2).then_some(())
    })
    .await;
    assert!(system.clock.now() + LOOK_AHEAD >= far_at - Duration::from_secs(1), "the far job was promoted too early");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_promotes_jobs_that_become_due() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let mut job = system.job(tenant, "noop", &json!({}));
    job.run_at = Some(system.clock.now() + 10 * LOOK_AHEAD);
    let id = system.enqueue(vec![job]).await?[0];
    // Meanwhile another job has passed through every component, and this one still waits.
    let other = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    reaches(&system, tenant, other, "completed").await;
    reaches(&system, tenant, id, "scheduled").await;
    // Simulates that ten minutes have passed.
    let mut ledger = Ledger::open(&system).await?;
    sqlx::query("update jobs set run_at = now() where id = $1").bind(id).execute(&mut ledger.0).await?;
    reaches(&system, tenant, id, "completed").await;
    Ok(())
}
