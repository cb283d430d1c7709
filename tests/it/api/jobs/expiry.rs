//! Jobs that must not start after a given time.

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use shared::queue::IndexState;
use tests::{eventually::eventually, test_app::TestApp};

use crate::api::{LEASE, PATIENCE, job_in_state};

const JOBS: &str = "/api/v1/jobs";
const TOLD: &str = "expired: it was not to be started after its expires_at";

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_job_is_discarded_and_its_relations_are_settled() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let _scheduler = app.system.scheduler();
    let soon = app.system.clock.now() + TimeDelta::seconds(2);
    let body = json!({ "kind": "noop", "expires_at": soon, "unique": { "key": "otp" } });
    let job = api.post(JOBS, &body).await?.id();
    let dependent = api.post(JOBS, &json!({ "kind": "noop", "after": [job] })).await?.id();
    // No worker runs, so the scheduler discards the job.
    let job = job_in_state(&api, job, "discarded").await;
    assert_eq!((&job["errors"][0]["error"], &job["attempt"]), (&json!(TOLD), &json!(1)));
    assert_eq!(api.get(&format!("{JOBS}/{dependent}")).await?.ok(200)["state"], "cancelled");
    api.post(JOBS, &json!({ "kind": "noop", "unique": { "key": "otp" } })).await?.ok(202);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_job_is_not_started_by_a_fetch() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    // The index is built, then there is no leader, so only the check at fetch can discard the job.
    let (scheduler, queue) = (app.system.scheduler(), "default".parse()?);
    eventually(PATIENCE, "the index is built", async || {
        let status = app.system.index.status(&queue).await.ok()?;
        (status.state == IndexState::Ready && status.complete).then_some(())
    })
    .await;
    scheduler.stop().await;
    let soon = app.system.clock.now() + TimeDelta::seconds(1);
    let job = api.post(JOBS, &json!({ "kind": "noop", "expires_at": soon })).await?.id();
    eventually(PATIENCE, "its expiry has passed", async || {
        (app.system.clock.now() > soon + TimeDelta::milliseconds(50)).then_some(())
    })
    .await;
    assert_eq!(api.get(&format!("{JOBS}/{job}")).await?.ok(200)["state"], "available");
    let _worker = app.system.worker(1, LEASE);
    assert_eq!(job_in_state(&api, job, "discarded").await["errors"][0]["error"], TOLD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_began_before_the_expiry_continues() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let soon = app.system.clock.now() + TimeDelta::seconds(4);
    let job = api.post(JOBS, &json!({ "kind": "sleep", "args": { "ms": 7_000 }, "expires_at": soon })).await?.id();
    let job = job_in_state(&api, job, "completed").await;
    assert_eq!((&job["attempt"], &job["errors"]), (&json!(1), &json!(null)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_expires_before_it_can_start_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let now = app.system.clock.now();
    let hour = TimeDelta::hours(1);
    for body in [
        json!({ "kind": "noop", "expires_at": now }),
        json!({ "kind": "noop", "run_at": now + hour, "expires_at": now + hour }),
    ] {
        let answer = api.post(JOBS, &body).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error(), ("/expires_at", "expires_at must be later than now and run_at"));
    }
    let fits = json!({ "kind": "noop", "run_at": now + hour, "expires_at": now + hour + TimeDelta::milliseconds(1) });
    api.post(JOBS, &fits).await?.ok(202);
    Ok(())
}
