//! `/api/v1/jobs/batch`: one result per job, and the limit on jobs per request.

use anyhow::Result;
use serde_json::{Value, json};
use tests::test_app::TestApp;

use crate::api::redacted;

const BATCH: &str = "/api/v1/jobs/batch";

fn batch(count: usize) -> Value {
    json!({ "jobs": vec![json!({ "kind": "noop" }); count] })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_batch_has_its_own_result() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let later = app.system.clock.now() + chrono::TimeDelta::hours(1);
    let jobs = json!({ "jobs": [
        { "kind": "noop" },
        { "kind": "nop" },
        { "kind": "sleep", "args": { "ms": "soon" } },
        { "kind": "noop", "run_at": later },
        { "kind": "noop", "max_attempts": 0 },
    ] });
    let answer = api.post(BATCH, &jobs).await?;
    insta::assert_json_snapshot!(redacted(answer.ok(202).clone()), @r#"
    {
      "accepted": 2,
      "rejected": 3,
      "results": [
        {
          "id": "[id]",
          "state": "available",
          "status": "accepted"
        },
        {
          "code": "unknown_kind",
          "detail": "there is no kind \"nop\"; did you mean \"noop\"?",
          "errors": [
            {
              "detail": "there is no kind \"nop\"; did you mean \"noop\"?",
              "pointer": "/kind"
            }
          ],
          "status": "rejected"
        },
        {
          "code": "invalid_args",
          "detail": "the args do not match the kind's schema",
          "errors": [
            {
              "detail": "\"soon\" is not of type \"integer\"",
              "pointer": "/args/ms"
            }
          ],
          "status": "rejected"
        },
        {
          "id": "[id]",
          "state": "scheduled",
          "status": "accepted"
        },
        {
          "code": "invalid_body",
          "detail": "the body does not match the documented schema",
          "errors": [
            {
              "detail": "max_attempts must be 1 to 100",
              "pointer": "/max_attempts"
            }
          ],
          "status": "rejected"
        }
      ]
    }
    "#);
    for result in [&answer.body["results"][0], &answer.body["results"][3]] {
        let id = result["id"].as_str().unwrap_or_default();
        assert_eq!(api.get(&format!("/api/v1/jobs/{id}")).await?.ok(200)["state"], result["state"]);
    }
    assert_eq!(api.get("/api/v1/jobs").await?.ok(200)["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_1_to_1000_jobs() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for count in [0, 1_001] {
        let answer = api.post(BATCH, &batch(count)).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error(), ("/jobs", &*format!("a batch has 1 to 1000 jobs, this one has {count}")));
    }
    for count in [1, 1_000] {
        let answer = api.post(BATCH, &batch(count)).await?;
        assert_eq!(answer.ok(202)["accepted"], count);
        assert_eq!(answer.body["results"].as_array().map(Vec::len), Some(count));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_a_valid_job_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let answer =
        api.post(BATCH, &json!({ "jobs": [{ "kind": "nop" }, { "kind": "noop", "priority": 2, "args": 1 }] })).await?;
    answer.problem(422, "invalid_body");
    assert_eq!(answer.body["rejected"], 2, "{}", answer.text);
    assert_eq!(answer.body["results"][1]["code"], "invalid_args");
    // A body that cannot be parsed as jobs is refused as a whole, with the pointer to the error.
    let answer = api.post(BATCH, &json!({ "jobs": [{ "kind": "noop" }, { "kind": "noop", "tenant_id": 1 }] })).await?;
    answer.problem(422, "invalid_body");
    assert_eq!(answer.only_error().0, "/jobs/1/tenant_id");
    api.post(BATCH, &json!({ "jobs": [], "state": "completed" })).await?.problem(422, "invalid_body");
    assert_eq!(api.get("/api/v1/jobs").await?.ok(200)["items"], json!([]));
    Ok(())
}
