//! Following single jobs: their changes are announced, and no other job's.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::queue::{JobChange, Notice, Notices};
use tests::{
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::queue::support::{LEASE, PATIENCE, callback, cancel, indexed, queue, reaches};

const SPAN: Duration = Duration::from_mins(1);

async fn connected(system: &TestSystem, stop: &CancellationToken) -> Notices {
    let mut notices = Notices::watch(&system.index, &[queue()], stop.clone());
    assert_eq!(notices.next().await, Some(Notice::Connected));
    notices
}

async fn next(notices: &mut Notices) -> (Uuid, JobChange) {
    match timeout(PATIENCE, notices.next()).await {
        Ok(Some(Notice::Changed(id, change))) => (id, change),
        other => panic!("no change was announced: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_job_announces_each_step_and_others_do_not() -> Result<()> {
    let system = TestSystem::start().await?;
    let stop = CancellationToken::new();
    let sink = HttpSink::start().await?;
    sink.set("followed", Behaviour::Answer(http::StatusCode::INTERNAL_SERVER_ERROR));
    let (tenant, _scheduler) = (system.tenant("acme").await?, system.scheduler());
    let mut notices = connected(&system, &stop).await;
    let followed = callback(&system, tenant, &sink, "followed");
    system.index.watch(&queue(), tenant, followed.id, SPAN).await?;
    let other = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    let id = system.enqueue(vec![followed]).await?[0];
    indexed(&system, 2).await;
    let worker = system.worker(1, LEASE);
    assert_eq!(next(&mut notices).await, (id, JobChange::Leased));
    assert_eq!(next(&mut notices).await, (id, JobChange::WaitsAgain), "the job failed and is retried");
    sink.release("followed");
    assert_eq!(next(&mut notices).await, (id, JobChange::Leased));
    assert_eq!(next(&mut notices).await, (id, JobChange::Finished));
    reaches(&system, tenant, other, "completed").await;
    worker.stop().await?;
    stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_job_announces_its_cancellation() -> Result<()> {
    let system = TestSystem::start().await?;
    let stop = CancellationToken::new();
    let (tenant, _scheduler) = (system.tenant("acme").await?, system.scheduler());
    let mut notices = connected(&system, &stop).await;
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    indexed(&system, 1).await;
    system.index.watch(&queue(), tenant, id, SPAN).await?;
    cancel(&system, tenant, id).await?;
    assert_eq!(next(&mut notices).await, (id, JobChange::Cancelled));
    stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_after_its_period() -> Result<()> {
    let system = TestSystem::start().await?;
    let stop = CancellationToken::new();
    let (tenant, _scheduler) = (system.tenant("acme").await?, system.scheduler());
    let mut notices = connected(&system, &stop).await;
    let job = |_| system.job(tenant, "noop", &json!({}));
    let ids = system.enqueue((0..2).map(job).collect()).await?;
    indexed(&system, 2).await;
    system.index.watch(&queue(), tenant, ids[0], Duration::from_millis(1)).await?;
    // The second job keeps the set of followed jobs alive beyond the span of the first.
    system.index.watch(&queue(), tenant, ids[1], SPAN).await?;
    // Twenty of its spans, by any clock.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let worker = system.worker(1, LEASE);
    for id in &ids {
        reaches(&system, tenant, *id, "completed").await;
    }
    assert_eq!(next(&mut notices).await, (ids[1], JobChange::Leased), "the first job is no longer announced");
    worker.stop().await?;
    stop.cancel();
    Ok(())
}
