//! Cancel and retry: the states that allow them, and the responses in the others.

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use tests::test_app::{ApiClient, TestApp};
use uuid::Uuid;

use crate::api::{LEASE, job_in_state};

const JOBS: &str = "/api/v1/jobs";

async fn act(api: &ApiClient, id: Uuid, action: &str) -> Result<tests::test_app::Answer> {
    api.act(&format!("{JOBS}/{id}/{action}")).await
}

async fn conflict(api: &ApiClient, id: Uuid, action: &str, state: &str) -> Result<()> {
    let answer = act(api, id, action).await?;
    assert_eq!(answer.problem(409, "conflict")["state"], state, "{action}: {}", answer.text);
    assert_eq!(answer.body["detail"], format!("the job is {state}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_cancelled_once_and_can_be_retried() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let later = app.system.clock.now() + TimeDelta::hours(1);
    for body in [json!({ "kind": "noop" }), json!({ "kind": "noop", "run_at": later })] {
        let job = api.post(JOBS, &body).await?;
        conflict(&api, job.id(), "retry", job.ok(202)["state"].as_str().unwrap_or_default()).await?;
        let cancelled = act(&api, job.id(), "cancel").await?;
        assert_eq!(cancelled.ok(200)["state"], "cancelled");
        assert!(cancelled.body["finalized_at"].is_string());
        conflict(&api, job.id(), "cancel", "cancelled").await?;
        assert_eq!(act(&api, job.id(), "retry").await?.ok(200)["state"], "available");
        conflict(&api, job.id(), "retry", "available").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn final_jobs_refuse_and_a_discarded_one_runs_again() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let done = api.post(JOBS, &json!({ "kind": "noop" })).await?.id();
    job_in_state(&api, done, "completed").await;
    conflict(&api, done, "cancel", "completed").await?;
    conflict(&api, done, "retry", "completed").await?;

    let dead = api.post(JOBS, &json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 })).await?.id();
    let job = job_in_state(&api, dead, "discarded").await;
    assert_eq!(job["errors"].as_array().map(Vec::len), Some(1), "{job}");
    conflict(&api, dead, "cancel", "discarded").await?;
    let again = act(&api, dead, "retry").await?;
    assert!(again.ok(200)["attempt"].as_i64() > job["attempt"].as_i64(), "{}", again.text);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_running_job_stays_cancelled() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let job = api.post(JOBS, &json!({ "kind": "sleep", "args": { "ms": 60_000 } })).await?.id();
    job_in_state(&api, job, "running").await;
    conflict(&api, job, "retry", "available").await?;
    assert_eq!(act(&api, job, "cancel").await?.ok(200)["state"], "cancelled");
    // The only slot is free again well before the minute is over.
    let next = api.post(JOBS, &json!({ "kind": "noop" })).await?.id();
    job_in_state(&api, next, "completed").await;
    assert_eq!(api.get(&format!("{JOBS}/{job}")).await?.ok(200)["state"], "cancelled");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}
