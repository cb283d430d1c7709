//! Rows that the index was never told of are found.

use anyhow::Result;
use serde_json::json;
use shared::queue::producer::Producer;
use tests::system::TestSystem;

use super::support::{LEASE, indexed, reaches};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_committed_and_never_pushed_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    // Not before the index is whole: a rebuild would find the row too.
    indexed(&system, 0).await;
    let epoch = system.index.status(&super::support::queue()).await?.epoch;
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    let mut transaction = system.tenants.begin(tenant).await?;
    Producer::enqueue_in(&mut transaction, &[job]).await?;
    transaction.commit().await?;
    reaches(&system, tenant, id, "completed").await;
    assert_eq!(system.index.status(&super::support::queue()).await?.epoch, epoch, "it was swept, not rebuilt");
    Ok(())
}
