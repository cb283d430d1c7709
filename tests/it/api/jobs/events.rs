//! Following a job: which changes produce events, resuming after a disconnect, and the limits on
//! streams.

use std::time::Duration;

use anyhow::Result;
use api::job_events::StreamLimits;
use axum::http::Method;
use serde_json::json;
use tests::{
    event_stream::EventStream,
    test_app::{Answer, ApiClient, TestApp},
};
use uuid::Uuid;

use crate::api::{LEASE, PATIENCE, job_in_state};

const JOBS: &str = "/api/v1/jobs";
/// Longer than a change takes to reach a stream, even without a notification.
const SILENCE: Duration = Duration::from_millis(1_500);

fn path(job: Uuid) -> String {
    format!("{JOBS}/{job}/events")
}

async fn follow(api: &ApiClient, job: Uuid, last: Option<&str>) -> Result<EventStream> {
    EventStream::open(api.request(&Method::GET, &path(job)), last).await
}

async fn sleeping(api: &ApiClient, ms: u64) -> Result<Uuid> {
    Ok(api.post(JOBS, &json!({ "kind": "sleep", "args": { "ms": ms } })).await?.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_jobs_state_and_ends_with_the_final_one() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let job = sleeping(&api, 1_500).await?;
    let mut stream = follow(&api, job, None).await?;
    assert_eq!(stream.response.headers()["cache-control"], "no-store");
    assert_eq!(stream.response.headers()["x-accel-buffering"], "no");
    let first = stream.next(PATIENCE).await.expect("the job as it is");
    assert_eq!((first.name.as_str(), &first.data["state"], first.retry_ms), ("job", &json!("available"), Some(3_000)));
    assert_eq!(first.data["id"], job.to_string());
    assert!(first.data.get("args").is_none(), "{}", first.data);
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    assert_eq!(stream.states_to_the_end(PATIENCE).await, ["running", "completed"]);
    Ok(())
}

/// Every [`EventStream`] compares its events with the OpenAPI document.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_the_documented_form_and_the_job_as_it_is_shown() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let job = api.post(JOBS, &json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 })).await?.id();
    let mut stream = follow(&api, job, None).await?;
    let mut last = stream.next(PATIENCE).await.expect("the job as it is");
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    while let Some(event) = stream.next(PATIENCE).await {
        last = event;
    }
    assert_eq!(last.name, "job");
    let mut shown = api.get(&format!("{JOBS}/{job}")).await?.ok(200).clone();
    shown.as_object_mut().expect("a job").remove("args").expect("args");
    assert_eq!(last.data, shown);
    assert_eq!((&shown["state"], shown["errors"].as_array().map(Vec::len)), (&json!("discarded"), Some(1)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_stream_has_the_missed_changes_and_no_duplicates() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let job = sleeping(&api, 60_000).await?;
    let waiting = follow(&api, job, None).await?.next(PATIENCE).await.expect("an event");
    let mut again = follow(&api, job, Some(&waiting.id)).await?;
    assert!(again.is_silent_for(SILENCE).await, "the client has that version");
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let running = again.next(PATIENCE).await.expect("an event");
    assert_eq!(running.data["state"], "running");
    drop(again);

    api.act(&format!("{JOBS}/{job}/cancel")).await?.ok(200);
    let mut late = follow(&api, job, Some(&waiting.id)).await?;
    let last = late.next(PATIENCE).await.expect("the missed changes, as one event");
    assert_eq!(last.data["state"], "cancelled");
    assert_eq!(late.next(PATIENCE).await, None, "then the end of the stream");
    let request = api.request(&Method::GET, &path(job)).header("last-event-id", &last.id);
    assert_eq!(Answer::to(request).await?.status, 204, "no reason to reconnect");
    assert_eq!(follow(&api, job, Some("nonsense")).await?.states_to_the_end(PATIENCE).await, ["cancelled"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_sent_at_once_and_not_at_the_next_poll() -> Result<()> {
    let limits = StreamLimits { poll_interval: Duration::from_hours(1), ..StreamLimits::default() };
    let app = TestApp::with_streams(tests::system::TestSystem::start().await?, limits).await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let job = sleeping(&api, 60_000).await?;
    job_in_state(&api, job, "running").await;
    let mut stream = follow(&api, job, None).await?;
    assert_eq!(stream.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("running")));
    api.act(&format!("{JOBS}/{job}/cancel")).await?.ok(200);
    assert_eq!(stream.states_to_the_end(PATIENCE).await, ["cancelled"]);
    Ok(())
}

/// Streams never poll here, so every event comes from a notification.
async fn announced_only() -> Result<TestApp> {
    let limits = StreamLimits { poll_interval: Duration::from_hours(1), ..StreamLimits::default() };
    TestApp::with_streams(tests::system::TestSystem::start().await?, limits).await
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_sent_when_it_is_reported() -> Result<()> {
    let app = announced_only().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let body = json!({ "kind": "sleep", "args": { "ms": 20_000, "steps": 20 } });
    let job = api.post(JOBS, &body).await?.id();
    job_in_state(&api, job, "running").await;
    let mut stream = follow(&api, job, None).await?;
    let mut percents = Vec::new();
    while percents.len() < 3 {
        let event = stream.next(PATIENCE).await.expect("an event");
        percents.extend(event.data["progress"]["percent"].as_u64());
    }
    assert!(percents.is_sorted() && percents[0] < percents[2], "{percents:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dependency_that_ends_is_sent() -> Result<()> {
    let app = announced_only().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    let held = api.post(JOBS, &json!({ "kind": "noop", "run_at": "2100-01-01T00:00:00Z" })).await?.id();
    let first = sleeping(&api, 1_500).await?;
    let job =
        api.post(JOBS, &json!({ "kind": "noop", "after": [held, first], "on_dependency_failure": "run" })).await?.id();
    let mut stream = follow(&api, job, None).await?;
    assert_eq!(stream.next(PATIENCE).await.map(|event| event.data["waits_for"].clone()), Some(json!(2)));
    assert_eq!(stream.next(PATIENCE).await.map(|event| event.data["waits_for"].clone()), Some(json!(1)));
    api.act(&format!("{JOBS}/{held}/cancel")).await?.ok(200);
    let states = stream.states_to_the_end(PATIENCE).await;
    assert_eq!(states.last().map(String::as_str), Some("completed"), "{states:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_a_promotion_and_an_expiry_are_sent() -> Result<()> {
    let app = announced_only().await?;
    let api = app.tenant("acme").await?.api;
    let now = app.system.clock.now();
    let scheduled = api.post(JOBS, &json!({ "kind": "noop", "run_at": now + Duration::from_secs(10) })).await?.id();
    let mut promoted = follow(&api, scheduled, None).await?;
    assert_eq!(promoted.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("scheduled")));
    assert_eq!(
        promoted.next(PATIENCE).await.map(|event| event.data["state"].clone()),
        Some(json!("available")),
        "no worker runs"
    );

    let job = sleeping(&api, 60_000).await?;
    let expiring = api
        .post(JOBS, &json!({ "kind": "noop", "expires_at": app.system.clock.now() + Duration::from_secs(4) }))
        .await?;
    let mut expires = follow(&api, expiring.id(), None).await?;
    assert_eq!(expires.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("available")));
    let _scheduler = app.system.scheduler();
    assert_eq!(expires.states_to_the_end(PATIENCE).await, ["discarded"]);

    // A stream ends when its job ends; a client that waits for a redrive resumes from the version
    // it has. This stream is opened after the redrive.
    let path = format!("{JOBS}/{job}");
    api.act(&format!("{path}/cancel")).await?.ok(200);
    api.act(&format!("{path}/retry")).await?.ok(200);
    let mut redriven = follow(&api, job, None).await?;
    assert_eq!(redriven.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("available")));
    let _worker = app.system.worker(1, LEASE);
    job_in_state(&api, job, "running").await;
    assert_eq!(redriven.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("running")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_worker() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, first) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let job = sleeping(&api, 8_000).await?;
    job_in_state(&api, job, "running").await;
    let mut stream = follow(&api, job, None).await?;
    assert_eq!(stream.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("running")));
    // The run outlasts the grace, so the worker releases the job.
    first.stop().await?;
    assert_eq!(stream.next(PATIENCE).await.map(|event| event.data["state"].clone()), Some(json!("available")));
    let _second = app.system.worker(1, LEASE);
    assert_eq!(stream.states_to_the_end(PATIENCE).await, ["running", "completed"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_has_heartbeats() -> Result<()> {
    let limits = StreamLimits { heartbeat: Duration::from_millis(50), ..StreamLimits::default() };
    let app = TestApp::with_streams(tests::system::TestSystem::start().await?, limits).await?;
    let api = app.tenant("acme").await?.api;
    let mut stream = follow(&api, sleeping(&api, 1).await?, None).await?;
    stream.next(PATIENCE).await;
    assert!(stream.is_silent_for(SILENCE).await);
    assert!(stream.heartbeats() >= 3, "{}", stream.heartbeats());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_for_a_tenant_and_for_the_process() -> Result<()> {
    let limits = StreamLimits { per_tenant: 2, per_process: 3, ..StreamLimits::default() };
    let app = TestApp::with_streams(tests::system::TestSystem::start().await?, limits).await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let (job, foreign) = (sleeping(&api, 1).await?, sleeping(&other, 1).await?);
    let first = follow(&api, job, None).await?;
    let _second = follow(&api, job, None).await?;
    let refused = api.get(&path(job)).await?;
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "10");
    let _third = follow(&other, foreign, None).await?;
    let refused = other.get(&path(foreign)).await?;
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), "10");
    drop(first);
    tests::eventually::eventually(PATIENCE, "a stream is free again", async || follow(&api, job, None).await.ok())
        .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_its_streams() -> Result<()> {
    let limits = StreamLimits { poll_interval: Duration::from_millis(500), ..StreamLimits::default() };
    let app = TestApp::with_streams(tests::system::TestSystem::start().await?, limits).await?;
    let tenant = app.tenant("acme").await?;
    let job = sleeping(&tenant.api, 1).await?;
    let (id, key) = app.key(tenant.id, &["jobs:read"], None).await?;
    let mut stream = follow(&app.client(&key), job, None).await?;
    assert!(stream.next(PATIENCE).await.is_some());
    let mut transaction = app.system.tenants.begin(tenant.id).await?;
    sqlx::query("update api_keys set revoked_at = now() where id = $1").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    assert_eq!(stream.next(PATIENCE).await, None);
    Ok(())
}

/// A drain does not wait for streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_streams() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut stream = follow(&api, sleeping(&api, 1).await?, None).await?;
    assert!(stream.next(PATIENCE).await.is_some());
    drop(app);
    assert_eq!(stream.next(PATIENCE).await, None);
    Ok(())
}
