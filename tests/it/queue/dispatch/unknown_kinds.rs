//! Jobs with a kind or args of another release are left to a worker that has them. No attempt is
//! used, and no job loops.

use std::sync::Arc;

use anyhow::Result;
use jobs::{
    context::JobContext,
    job::{Job, JobError, Success},
    kind::Kind,
    registry::Registry,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use shared::{config::TestKinds, queue::NewJob};
use tests::{eventually::eventually, system::TestSystem};

use crate::queue::support::{LEASE, Ledger, PATIENCE, queue, reaches};

/// `noop` of a later release.
#[derive(Deserialize, JsonSchema)]
struct LaterNoop {}

impl Job for LaterNoop {
    const KIND: &'static str = "noop";
    const DESCRIPTION: &'static str = "Does nothing, with args of another form.";
    const QUEUE: &'static str = "default";
    const ARGS_VERSION: i16 = 2;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        Ok(Success::Done)
    }
}

/// The old worker fetches the job first; the new worker runs it.
async fn is_left(
    job: impl FnOnce(&TestSystem, shared::tenancy::TenantId) -> NewJob,
    old: Registry,
    new: Registry,
) -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let _scheduler = system.scheduler();
    let id = system.enqueue(vec![job(&system, tenant)]).await?[0];
    let inserted = ledger.row(id).await?;
    let old = system.worker_with(Arc::new(old), 4, LEASE);
    eventually(PATIENCE, "the old worker has requeued the job", async || {
        let status = system.index.status(&queue()).await.ok()?;
        (status.due == 1).then_some(())
    })
    .await;
    assert_eq!(ledger.row(id).await?, inserted, "the ledger is not written");
    // From here on the old worker keeps fetching the job, beside the new one.
    let _new = system.worker_with(Arc::new(new), 4, LEASE);
    let done = reaches(&system, tenant, id, "completed").await;
    assert_eq!((done.attempt, done.errors), (1, None));
    old.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_waits_for_a_worker_that_has_it() -> Result<()> {
    let job = |system: &TestSystem, tenant| system.job(tenant, "noop", &json!({}));
    is_left(job, Registry::new(TestKinds::None), Registry::new(TestKinds::One)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_args_wait_for_a_newer_worker() -> Result<()> {
    let job = |system: &TestSystem, tenant| {
        let mut job = system.job(tenant, "noop", &json!({}));
        job.args_version = 2;
        job
    };
    is_left(job, Registry::new(TestKinds::One), Registry::of(vec![Kind::of::<LaterNoop>()])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn older_args_are_run_by_a_newer_worker() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let _worker = system.worker_with(Arc::new(Registry::of(vec![Kind::of::<LaterNoop>()])), 1, LEASE);
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    assert_eq!(reaches(&system, tenant, id, "completed").await.attempt, 1);
    Ok(())
}

/// A job of an unknown kind blocks nothing: the slot goes to jobs that can run.
#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_no_worker_has_delays_no_other_job() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let unknown = |_| {
        let mut job = system.job(tenant, "noop", &json!({}));
        job.kind = "of_a_later_release".into();
        job
    };
    let unknown = system.enqueue((0..50).map(unknown).collect()).await?;
    let known = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    reaches(&system, tenant, known, "completed").await;
    let mut ledger = Ledger::open(&system).await?;
    for id in unknown {
        let row = ledger.row(id).await?;
        assert_eq!((row.attempt, row.failures, row.finalized_at), (1, 0, None));
    }
    Ok(())
}
