//! A leader that dies between two steps of a cascade.

use anyhow::Result;
use serde_json::json;
use shared::queue::control::{self, ControlOutcome};
use tests::system::TestSystem;

use super::{LEASE, is_killed};
use crate::queue::support::{
    chains::{all_are, chain, states},
    scheduler_spec,
};

/// The rest of the cascade is in the ledger, and the next leader continues it; none of its jobs
/// runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_cascade_is_continued() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let jobs = chain(&system, tenant, "noop").await?;
    let mut transaction = system.tenants.begin(tenant).await?;
    assert!(matches!(control::cancel(&mut transaction, jobs[0]).await?, ControlOutcome::Done(_)));
    transaction.commit().await?;
    let first = states(&system).await?["cancelled"];
    let mut leader = scheduler_spec(&system)?.env("ROTA_FAULT", "cascade_between_steps:1:kill").start()?;
    is_killed(&mut leader).await?;
    let second = states(&system).await?;
    assert!(second["cancelled"] > first && second["scheduled"] > 0, "{second:?}");
    let (_scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    let other = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?;
    all_are(&system, &[("cancelled", jobs.len()), ("completed", other.len())]).await?;
    worker.stop().await
}
