//! Expiring jobs, at the level of the engine; the client's view is in `api::jobs::expiry`.

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use shared::queue::repair::expiry;
use tests::{eventually::eventually, system::TestSystem};

use crate::queue::support::{LEASE, PATIENCE, build_index, lose_index, reaches};

/// Only the index records which jobs run. Its loss must not be taken to mean that none does.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_began_in_time_survives_the_loss_of_the_index() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    // No leader: the test runs the only sweep, and the index stays lost.
    build_index(&system).await;
    let worker = system.worker(1, LEASE);
    let over = system.clock.now() + TimeDelta::seconds(2);
    let mut job = system.job(tenant, "sleep", &json!({ "ms": 4_000 }));
    job.expires_at = Some(over);
    let id = system.enqueue(vec![job]).await?[0];
    reaches(&system, tenant, id, "running").await;
    lose_index(&system).await?;
    eventually(PATIENCE, "its expiry has passed", async || {
        (system.clock.now() > over + TimeDelta::milliseconds(50)).then_some(())
    })
    .await;
    assert_eq!(expiry::sweep(&system.system, &system.index).await?, 0);
    assert_eq!(reaches(&system, tenant, id, "completed").await.attempt, 1);
    worker.stop().await?;
    Ok(())
}
