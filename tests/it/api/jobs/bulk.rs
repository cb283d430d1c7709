//! Retrying and cancelling all jobs that match a filter.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use tests::test_app::{ApiClient, TestApp};
use uuid::Uuid;

use crate::api::{LEASE, job_in_state};

const JOBS: &str = "/api/v1/jobs";

async fn jobs(api: &ApiClient, job: &Value, count: usize) -> Result<Vec<Uuid>> {
    let answer = api.post("/api/v1/jobs/batch", &json!({ "jobs": vec![job; count] })).await?;
    let results = answer.ok(202)["results"].as_array().cloned().unwrap_or_default();
    Ok(results.iter().filter_map(|result| result["id"].as_str()?.parse().ok()).collect())
}

/// The response to a bulk action.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Counts {
    matched: u64,
    changed: u64,
    key_held: u64,
}

/// Applies an action to all jobs that match the filter of `body`.
async fn bulk(api: &ApiClient, action: &str, body: &Value) -> Result<Counts> {
    let answer = api.post(&format!("{JOBS}/{action}"), body).await?;
    Ok(Counts::deserialize(answer.ok(200))?)
}

fn counts(matched: u64, changed: u64) -> Counts {
    Counts { matched, changed, key_held: 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_changes_nothing() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let ids = jobs(&api, &json!({ "kind": "noop" }), 5).await?;
    jobs(&api, &json!({ "kind": "sleep", "args": { "ms": 1 } }), 2).await?;
    jobs(&other, &json!({ "kind": "noop" }), 3).await?;
    let noops = json!({ "filter": { "state": "available", "kind": "noop" }, "dry_run": true });
    assert_eq!(bulk(&api, "cancel", &noops).await?, counts(5, 0));
    for id in &ids {
        assert_eq!(api.get(&format!("{JOBS}/{id}")).await?.ok(200)["state"], "available");
    }
    let some = json!({ "filter": { "state": "available", "kind": "noop" }, "limit": 2 });
    assert_eq!(bulk(&api, "cancel", &some).await?, counts(2, 2));
    assert_eq!(api.get(&format!("{JOBS}/{}", ids[0])).await?.ok(200)["state"], "available", "the newest come first");
    let rest = json!({ "filter": { "state": "available" } });
    assert_eq!(bulk(&api, "cancel", &rest).await?, counts(5, 5));
    assert_eq!(bulk(&api, "cancel", &rest).await?, counts(0, 0));
    assert_eq!(
        bulk(&other, "cancel", &json!({ "filter": { "state": "available" }, "dry_run": true })).await?,
        counts(3, 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_jobs_are_retried_by_their_error_and_time() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    let failing = json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 });
    let panicking = json!({ "kind": "panic", "max_attempts": 1 });
    let (failed, panicked) = (jobs(&api, &failing, 3).await?, jobs(&api, &panicking, 2).await?);
    for id in failed.iter().chain(&panicked) {
        job_in_state(&api, *id, "discarded").await;
    }
    worker.stop().await?;
    let filter = |more: Value| {
        let mut filter = json!({ "state": "discarded" });
        filter.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        json!({ "filter": filter, "dry_run": true })
    };
    let (now, hour) = (app.system.clock.now(), chrono::TimeDelta::hours(1));
    for (more, expected) in [
        (json!({}), 5),
        (json!({ "error": "panicked: " }), 2),
        (json!({ "error": "100%" }), 0),
        (json!({ "queue": "default", "kind": "fail" }), 3),
        (json!({ "queue": "email" }), 0),
        (json!({ "finalized_after": now - hour }), 5),
        (json!({ "finalized_before": now - hour }), 0),
        (json!({ "finalized_after": now + hour }), 0),
    ] {
        assert_eq!(bulk(&api, "retry", &filter(more.clone())).await?, counts(expected, 0), "{more}");
    }
    let body = json!({ "filter": { "state": "discarded", "kind": "fail" } });
    assert_eq!(bulk(&api, "retry", &body).await?, counts(3, 3));
    let row = api.get(&format!("{JOBS}/{}", failed[0])).await?;
    assert_eq!((&row.ok(200)["state"], &row.body["attempt"]), (&json!("available"), &json!(2)));
    assert_eq!(api.get(&format!("{JOBS}/{}", panicked[0])).await?.ok(200)["state"], "discarded");
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_action_beyond_one_chunk_updates_the_index() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    jobs(&api, &json!({ "kind": "noop" }), 1_000).await?;
    jobs(&api, &json!({ "kind": "noop" }), 201).await?;
    let all = json!({ "filter": { "state": "available" }, "limit": 10_000 });
    assert_eq!(bulk(&api, "cancel", &all).await?, counts(1_201, 1_201));
    let again = json!({ "filter": { "state": "cancelled" }, "limit": 1_100 });
    assert_eq!(bulk(&api, "retry", &again).await?, counts(1_100, 1_100));
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(8, LEASE));
    let newest = api.get(&format!("{JOBS}?limit=1")).await?.ok(200)["items"][0]["id"].clone();
    job_in_state(&api, newest.as_str().and_then(|id| id.parse().ok()).expect("an id"), "completed").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_jobs_with_one_unique_key_one_is_retried() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop", "unique": { "key": "one" } });
    for _ in 0..3 {
        let job = api.post(JOBS, &body).await?.id();
        api.act(&format!("{JOBS}/{job}/cancel")).await?.ok(200);
    }
    let retry = json!({ "filter": { "state": "cancelled" } });
    assert_eq!(bulk(&api, "retry", &retry).await?, Counts { matched: 3, changed: 1, key_held: 2 });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn states_and_limits_are_checked() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (action, state) in [("retry", "completed"), ("retry", "available"), ("cancel", "discarded")] {
        let answer = api.post(&format!("{JOBS}/{action}"), &json!({ "filter": { "state": state } })).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error().0, "/filter/state");
    }
    for (limit, status) in [(0, 422), (1, 200), (10_000, 200), (10_001, 422)] {
        let body = json!({ "filter": { "state": "discarded" }, "limit": limit });
        assert_eq!(api.post(&format!("{JOBS}/retry"), &body).await?.status, status, "{limit}");
    }
    api.post(&format!("{JOBS}/retry"), &json!({ "filter": {} })).await?.problem(422, "invalid_body");
    Ok(())
}

/// PostgreSQL's text type cannot hold NUL: the request is refused instead of a statement failing.
#[tokio::test(flavor = "multi_thread")]
async fn a_nul_in_a_filter_is_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (action, state) in [("retry", "discarded"), ("cancel", "available")] {
        for member in ["kind", "queue", "error"] {
            let mut filter = json!({ "state": state });
            filter[member] = "a\0b".into();
            let answer = api.post(&format!("{JOBS}/{action}"), &json!({ "filter": filter })).await?;
            answer.problem(422, "invalid_body");
            assert_eq!(answer.only_error().0, format!("/filter/{member}"));
            filter[member] = serde_json::Value::Null;
            api.post(&format!("{JOBS}/{action}"), &json!({ "filter": filter })).await?.ok(200);
        }
    }
    Ok(())
}
