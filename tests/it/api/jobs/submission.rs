//! Submitting a job: accepted input, and the pointer of each refusal.

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::test_app::TestApp;
use uuid::Uuid;

use crate::api::{LEASE, job_in_state, redacted};

const JOBS: &str = "/api/v1/jobs";

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_can_be_seen_and_runs() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let answer = api.post(JOBS, &json!({ "kind": "noop" })).await?;
    insta::assert_json_snapshot!(redacted(answer.ok(202).clone()), @r#"
    {
      "id": "[id]",
      "kind": "noop",
      "queue": "default",
      "state": "available"
    }
    "#);
    let location = answer.header("location").to_owned();
    assert_eq!(location, format!("{JOBS}/{}", answer.id()));
    assert_eq!(api.get(&location).await?.ok(200)["state"], "available");
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let job = job_in_state(&api, answer.id(), "completed").await;
    insta::assert_json_snapshot!(redacted(job), @r#"
    {
      "args": {},
      "attempt": 1,
      "batch_id": null,
      "errors": null,
      "expires_at": null,
      "finalized_at": "[time]",
      "id": "[id]",
      "inserted_at": "[time]",
      "kind": "noop",
      "max_attempts": 20,
      "priority": 2,
      "progress": null,
      "queue": "default",
      "result": null,
      "run_at": "[time]",
      "state": "completed",
      "unique_key": null,
      "waits_for": 0
    }
    "#);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn args_are_checked_against_the_kinds_schema() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let cases = [
        (json!({ "kind": "sleep" }), "/args"),
        (json!({ "kind": "sleep", "args": {} }), "/args"),
        (json!({ "kind": "sleep", "args": { "ms": "soon" } }), "/args/ms"),
        (json!({ "kind": "sleep", "args": { "ms": -1 } }), "/args/ms"),
        (json!({ "kind": "sleep", "args": { "ms": 1, "extra": 2 } }), "/args"),
        (json!({ "kind": "noop", "args": [] }), "/args"),
    ];
    for (body, pointer) in cases {
        let answer = api.post(JOBS, &body).await?;
        answer.problem(422, "invalid_args");
        assert_eq!(answer.only_error().0, pointer, "{body}: {}", answer.text);
    }
    let both = api.post(JOBS, &json!({ "kind": "callback", "args": { "url": 1, "token": [] } })).await?;
    let errors = both.problem(422, "invalid_args")["errors"].as_array().cloned().unwrap_or_default();
    let mut pointers: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/args/token", "/args/url"], "all errors are reported at once");
    assert_eq!(api.get(JOBS).await?.ok(200)["items"], json!([]), "refused jobs are not listed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_is_refused_with_the_nearest_one() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let detail = async |kind: &str| -> Result<String> {
        let answer = api.post(JOBS, &json!({ "kind": kind })).await?;
        Ok(answer.problem(422, "unknown_kind")["detail"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(detail("nop").await?, r#"there is no kind "nop"; did you mean "noop"?"#);
    assert_eq!(detail("callbak").await?, r#"there is no kind "callbak"; did you mean "callback"?"#);
    // Submitting an internal kind would bypass `campaigns:send`.
    assert_eq!(detail("send_campaign").await?, r#"jobs of the kind "send_campaign" are only created by Rota itself"#);
    assert_eq!(detail("zzzz").await?, r#"there is no kind "zzzz""#);
    assert!(detail(&"n".repeat(100_000)).await?.len() < 200, "the response does not repeat the input");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_clients_may_not_set_are_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?, app.tenant("other").await?);
    let foreign = json!(other.id.to_string());
    let members = [
        ("tenant_id", foreign),
        ("state", json!("completed")),
        ("attempts", json!(0)),
        ("attempt", json!(7)),
        ("id", json!(Uuid::nil())),
        ("queue", json!("other")),
        ("inserted_at", json!("2026-01-01T00:00:00Z")),
    ];
    for (member, value) in members {
        let answer = acme.api.post(JOBS, &json!({ "kind": "noop", member: value })).await?;
        answer.problem(422, "invalid_body");
        assert!(answer.only_error().1.contains(&format!("unknown field `{member}`")), "{}", answer.text);
    }
    for tenant in [&acme, &other] {
        assert_eq!(tenant.api.get(JOBS).await?.ok(200)["items"], json!([]));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_holds_on_both_sides() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let cases = [
        ("max_attempts", json!(1), true),
        ("max_attempts", json!(100), true),
        ("max_attempts", json!(0), false),
        ("max_attempts", json!(101), false),
        ("priority", json!(1), true),
        ("priority", json!(4), true),
        ("priority", json!(0), false),
        ("priority", json!(5), false),
        ("run_at", json!("2020-01-01T00:00:00Z"), true),
        ("run_at", Value::Null, true),
        ("run_at", json!("tomorrow"), false),
        ("kind", json!(1), false),
    ];
    for (member, value, permitted) in cases {
        let mut body = json!({ "kind": "noop" });
        body[member] = value;
        let answer = api.post(JOBS, &body).await?;
        if permitted {
            assert_eq!(answer.ok(202)["state"], "available", "{body}");
        } else {
            answer.problem(422, "invalid_body");
            assert_eq!(answer.only_error().0, format!("/{member}"), "{}", answer.text);
        }
    }
    let later = app.system.clock.now() + TimeDelta::hours(1);
    let answer = api.post(JOBS, &json!({ "kind": "noop", "run_at": later })).await?;
    assert_eq!(answer.ok(202)["state"], "scheduled");
    let job = api.get(answer.header("location")).await?;
    assert_eq!(job.ok(200)["state"], "scheduled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_unknown_and_malformed_ids_are_the_same_404() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let foreign = other.post(JOBS, &json!({ "kind": "noop" })).await?.id();
    let body = async |id: &str| -> Result<Value> {
        let mut body = acme.get(&format!("{JOBS}/{id}")).await?.problem(404, "not_found").clone();
        assert_eq!(body["instance"], format!("{JOBS}/{id}"));
        for own in ["instance", "request_id"] {
            body[own].take();
        }
        Ok(body)
    };
    let told = body(&foreign.to_string()).await?;
    for id in [Uuid::max().to_string(), "1".into(), "not-an-id".into(), "%00".into(), "'--".into()] {
        assert_eq!(body(&id).await?, told, "{id}");
    }
    other.get(&format!("{JOBS}/{foreign}")).await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kinds_are_listed_with_their_schemas() -> Result<()> {
    let app = TestApp::start().await?;
    let answer = app.tenant("acme").await?.api.get("/api/v1/job-kinds").await?;
    let kinds = answer.ok(200)["items"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = kinds.iter().filter_map(|kind| kind["kind"].as_str()).collect();
    for kind in ["noop", "sleep", "fail", "callback"] {
        assert!(names.contains(&kind), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("send_campaign")), "{names:?}");
    let sleep = kinds.into_iter().find(|kind| kind["kind"] == "sleep").unwrap_or_default();
    assert_eq!((&sleep["queue"], &sleep["timeout_seconds"]), (&json!("default"), &json!(300)));
    assert_eq!(sleep["args_schema"]["required"], json!(["ms"]));
    assert_eq!(sleep["args_schema"]["properties"]["ms"]["type"], "integer");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_long_past_means_now() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let before = app.system.clock.now() - TimeDelta::seconds(5);
    let answer = api.post(JOBS, &json!({ "kind": "noop", "run_at": "1970-01-01T00:00:00Z" })).await?;
    assert_eq!(answer.ok(202)["state"], "available");
    let job = api.get(&format!("{JOBS}/{}", answer.id())).await?;
    let run_at: chrono::DateTime<chrono::Utc> = job.ok(200)["run_at"].as_str().unwrap_or_default().parse()?;
    assert!(run_at > before, "{run_at}");
    Ok(())
}
