//! `Idempotency-Key`: a repeat creates nothing, another body under the same key is refused, tenants
//! have separate keys.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::future::try_join_all;
use serde_json::json;
use tests::test_app::{ApiClient, TestApp};

use crate::api::draft;

const JOBS: &str = "/api/v1/jobs";

async fn job_count(api: &ApiClient) -> Result<usize> {
    Ok(api.get(JOBS).await?.ok(200)["items"].as_array().map_or(0, Vec::len))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_response() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let body = json!({ "kind": "sleep", "args": { "ms": 1 } });
    let first = acme.post_once(JOBS, "order-1", &body).await?;
    assert_eq!(first.header("idempotency-replayed"), "");
    let repeat = acme.post_once(JOBS, "order-1", &body).await?;
    assert_eq!((repeat.ok(202), repeat.header("location")), (first.ok(202), first.header("location")));
    assert_eq!(repeat.header("idempotency-replayed"), "true");

    let changed = json!({ "kind": "sleep", "args": { "ms": 2 } });
    acme.post_once(JOBS, "order-1", &changed).await?.problem(422, "idempotency_key_reused");
    let batch = json!({ "jobs": [body] });
    acme.post_once("/api/v1/jobs/batch", "order-1", &batch).await?.problem(422, "idempotency_key_reused");
    assert_eq!(job_count(&acme).await?, 1);

    let foreign = other.post_once(JOBS, "order-1", &changed).await?;
    assert_eq!((foreign.status, foreign.header("idempotency-replayed")), (202, ""), "each tenant has its own keys");
    assert_ne!(acme.post_once(JOBS, "order-2", &body).await?.id(), first.id());
    assert_eq!(job_count(&acme).await?, 2);
    assert_eq!(job_count(&other).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_concurrent_requests_make_one_job() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop" });
    let answers = try_join_all((0..20).map(|_| api.post_once(JOBS, "storm", &body))).await?;
    let created =
        answers.iter().filter(|answer| answer.status == 202 && answer.header("idempotency-replayed").is_empty());
    assert_eq!(created.count(), 1, "one request did the work");
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        answer.problem(409, "idempotency_in_flight");
    }
    let ids: BTreeSet<_> = answers.iter().filter(|answer| answer.status == 202).map(|answer| answer.id()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(job_count(&api).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_1_to_255_characters() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop" });
    for (length, permitted) in [(0, false), (1, true), (255, true), (256, false)] {
        let answer = api.post_once(JOBS, &"k".repeat(length), &body).await?;
        if permitted {
            answer.ok(202);
        } else {
            answer.problem(400, "bad_request");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_does_not_store_its_key() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    api.post_once(JOBS, "again", &json!({ "kind": "nop" })).await?.problem(422, "unknown_kind");
    api.post_once(JOBS, "again", &json!({ "kind": "noop" })).await?.ok(202);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_and_a_repeated_campaign_make_nothing_new() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let batch = json!({ "jobs": [{ "kind": "noop" }, { "kind": "nop" }, { "kind": "noop" }] });
    let first = api.post_once("/api/v1/jobs/batch", "batch-1", &batch).await?;
    let repeat = api.post_once("/api/v1/jobs/batch", "batch-1", &batch).await?;
    assert_eq!((repeat.ok(202), repeat.header("idempotency-replayed")), (first.ok(202), "true"));
    let fewer = json!({ "jobs": [{ "kind": "noop" }] });
    api.post_once("/api/v1/jobs/batch", "batch-1", &fewer).await?.problem(422, "idempotency_key_reused");
    assert_eq!(job_count(&api).await?, 2);

    let mut campaign = draft();
    let first = api.post_once("/api/v1/campaigns", "campaign-1", &campaign).await?;
    let repeat = api.post_once("/api/v1/campaigns", "campaign-1", &campaign).await?;
    assert_eq!(
        (repeat.ok(201)["id"].clone(), repeat.header("idempotency-replayed")),
        (first.body["id"].clone(), "true")
    );
    campaign["name"] = "Autumn".into();
    api.post_once("/api/v1/campaigns", "campaign-1", &campaign).await?.problem(422, "idempotency_key_reused");
    assert_eq!(api.get("/api/v1/campaigns").await?.ok(200)["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}
