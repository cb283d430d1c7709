//! What becomes of a job when nothing is broken.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::{eventually::eventually, system::TestSystem};

const PATIENCE: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_is_completed() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    eventually(PATIENCE, "the job is completed", async || {
        let job = system.state(tenant, id).await.ok()??;
        (job.state.as_str() == "completed").then_some(())
    })
    .await;
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}
