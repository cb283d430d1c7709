//! Batches with a completion job: counters updated as jobs end, completed exactly once.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::test_app::{Answer, ApiClient, TestApp};
use uuid::Uuid;

use crate::api::{LEASE, job_in_state};

const BATCH: &str = "/api/v1/jobs/batch";

async fn submit(api: &ApiClient, jobs: &Value) -> Result<(Uuid, Answer)> {
    let answer = api.post(BATCH, &json!({ "jobs": jobs, "on_complete": { "kind": "noop" } })).await?;
    let id = answer.ok(202)["batch_id"].as_str().context("a batch id")?.parse()?;
    Ok((id, answer))
}

async fn show(api: &ApiClient, id: Uuid) -> Result<Value> {
    Ok(api.get(&format!("{BATCH}/{id}")).await?.ok(200).clone())
}

/// The counters of a batch.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Counts {
    total: u64,
    pending: u64,
    completed: u64,
    discarded: u64,
    cancelled: u64,
}

fn counts(batch: &Value) -> Result<Counts> {
    Ok(Counts::deserialize(batch)?)
}

fn job(answer: &Answer, at: usize) -> Uuid {
    answer.body["results"][at]["id"].as_str().and_then(|id| id.parse().ok()).expect("an accepted job")
}

fn completion(batch: &Value) -> Uuid {
    batch["completion_job"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_completion_job_runs_once_all_are_final() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let jobs = json!([
        { "kind": "noop" },
        { "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 },
        { "kind": "sleep", "args": { "ms": 100 } },
        { "kind": "noop", "run_at": app.system.clock.now() + chrono::TimeDelta::hours(1) },
        { "kind": "nop" },
    ]);
    let (id, answer) = submit(&api, &jobs).await?;
    let batch = show(&api, id).await?;
    assert_eq!(counts(&batch)?, Counts { total: 4, pending: 4, ..Counts::default() });
    assert_eq!(batch["finished_at"], Value::Null);
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    for (at, state) in [(0, "completed"), (1, "discarded"), (2, "completed")] {
        assert_eq!(job_in_state(&api, job(&answer, at), state).await["batch_id"], json!(id));
    }
    let batch = show(&api, id).await?;
    assert_eq!(counts(&batch)?, Counts { total: 4, pending: 1, completed: 2, discarded: 1, ..Counts::default() });
    let last = api.get(&format!("/api/v1/jobs/{}", completion(&batch))).await?;
    assert_eq!((&last.ok(200)["state"], &last.body["waits_for"]), (&json!("scheduled"), &json!(1)));
    api.act(&format!("/api/v1/jobs/{}/cancel", job(&answer, 3))).await?.ok(200);
    let last = job_in_state(&api, completion(&batch), "completed").await;
    assert_eq!((&last["attempt"], &last["batch_id"]), (&json!(1), &json!(id)));
    let batch = show(&api, id).await?;
    assert_eq!(counts(&batch)?, Counts { total: 4, completed: 2, discarded: 1, cancelled: 1, ..Counts::default() });
    assert!(batch["finished_at"].is_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_is_pending_again_until_the_batch_is_finished() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (id, answer) = submit(&api, &json!([{ "kind": "noop" }, { "kind": "noop" }])).await?;
    let act = async |at: usize, action: &str| -> Result<()> {
        api.act(&format!("/api/v1/jobs/{}/{action}", job(&answer, at))).await?.ok(200);
        Ok(())
    };
    act(0, "cancel").await?;
    assert_eq!(counts(&show(&api, id).await?)?, Counts { total: 2, pending: 1, cancelled: 1, ..Counts::default() });
    act(0, "retry").await?;
    assert_eq!(counts(&show(&api, id).await?)?, Counts { total: 2, pending: 2, ..Counts::default() });
    act(0, "cancel").await?;
    act(1, "cancel").await?;
    let finished = show(&api, id).await?;
    assert_eq!(counts(&finished)?, Counts { total: 2, cancelled: 2, ..Counts::default() });
    // From here on the batch does not change, whatever happens to its jobs.
    act(0, "retry").await?;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    job_in_state(&api, job(&answer, 0), "completed").await;
    job_in_state(&api, completion(&finished), "completed").await;
    assert_eq!(show(&api, id).await?, finished);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_end_in_one_completion() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, one, two) = (app.system.scheduler(), app.system.worker(8, LEASE), app.system.worker(8, LEASE));
    let (id, _) = submit(&api, &json!(vec![json!({ "kind": "noop" }); 1_000])).await?;
    let completion = completion(&show(&api, id).await?);
    assert_eq!(job_in_state(&api, completion, "completed").await["attempt"], 1);
    assert_eq!(counts(&show(&api, id).await?)?, Counts { total: 1_000, completed: 1_000, ..Counts::default() });
    one.stop().await?;
    two.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_belongs_to_its_tenant_and_needs_a_job_and_a_kind() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let (id, _) = submit(&api, &json!([{ "kind": "noop" }])).await?;
    other.get(&format!("{BATCH}/{id}")).await?.problem(404, "not_found");
    let wrong = json!({ "jobs": [{ "kind": "noop" }], "on_complete": { "kind": "sleep", "args": { "ms": "soon" } } });
    let answer = api.post(BATCH, &wrong).await?;
    answer.problem(422, "invalid_args");
    assert_eq!(answer.only_error().0, "/on_complete/args/ms");
    // If all jobs are refused there is neither a batch nor a completion job.
    api.post("/api/v1/jobs", &json!({ "kind": "noop", "unique": { "key": "taken" } })).await?.ok(202);
    let taken =
        json!({ "jobs": [{ "kind": "noop", "unique": { "key": "taken" } }], "on_complete": { "kind": "noop" } });
    api.post(BATCH, &taken).await?.problem(422, "invalid_body");
    let jobs = api.get("/api/v1/jobs").await?;
    assert_eq!(jobs.ok(200)["items"].as_array().map(Vec::len), Some(3), "{}", jobs.text);
    // Without a completion job there is no batch to show.
    assert_eq!(api.post(BATCH, &json!({ "jobs": [{ "kind": "noop" }] })).await?.ok(202)["batch_id"], Value::Null);
    Ok(())
}
