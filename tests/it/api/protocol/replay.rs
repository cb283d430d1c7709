//! A used idempotency key is resolved before any validation: an accepted request gets its first
//! response again, whatever has changed since.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::http::Method;
use jobs::registry::Registry;
use serde_json::{Value, json};
use shared::config::TestKinds;
use tests::{
    eventually::eventually,
    system::TestSystem,
    test_app::{Answer, ApiClient, TestApp},
};

use crate::api::{PATIENCE, draft};

const JOBS: &str = "/api/v1/jobs";
const BATCH: &str = "/api/v1/jobs/batch";
const CAMPAIGNS: &str = "/api/v1/campaigns";

/// The operations that accept a key, each with a valid body.
fn keyed() -> [(&'static str, Value); 3] {
    let noop = json!({ "kind": "noop" });
    [(JOBS, noop.clone()), (BATCH, json!({ "jobs": [noop, { "kind": "nop" }] })), (CAMPAIGNS, draft())]
}

fn assert_replayed(repeat: &Answer, first: &Answer) {
    assert_eq!((repeat.status, repeat.header("idempotency-replayed")), (first.status, "true"), "{}", repeat.text);
    assert_eq!(repeat.header("location"), first.header("location"));
    assert_eq!(repeat.body, first.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_this_test_list_the_same_operations() -> Result<()> {
    let app = TestApp::start().await?;
    let document = app.anonymous().get("/api/openapi.json").await?.ok(200).clone();
    let mut told = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("a path item is an object")? {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            if parameters.clone().any(|parameter| parameter["name"] == "Idempotency-Key") {
                told.push(format!("{method} {path}"));
            }
        }
    }
    let mut expected: Vec<String> = keyed().iter().map(|(path, _)| format!("post {path}")).collect();
    expected.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_has_passed_does_not_change_the_replay() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let soon = app.system.clock.now() + Duration::from_millis(1_500);
    let job = json!({ "kind": "noop", "expires_at": soon });
    let batch = json!({ "jobs": [job] });
    let due = json!({ "kind": "noop", "run_at": soon });
    let first = [
        api.post_once(JOBS, "job", &job).await?,
        api.post_once(BATCH, "batch", &batch).await?,
        api.post_once(JOBS, "due", &due).await?,
    ];
    assert_eq!(first[2].ok(202)["state"], "scheduled");
    eventually(PATIENCE, "the time has passed", async || (app.system.clock.now() > soon).then_some(())).await;
    assert_replayed(&api.post_once(JOBS, "job", &job).await?, &first[0]);
    assert_replayed(&api.post_once(BATCH, "batch", &batch).await?, &first[1]);
    assert_replayed(&api.post_once(JOBS, "due", &due).await?, &first[2]);
    api.post(JOBS, &job).await?.problem(422, "invalid_body");
    api.post_once(JOBS, "another key", &job).await?.problem(422, "invalid_body");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_kind_does_not_change_the_replay() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let key = app.key(tenant, &["jobs:create", "jobs:read"], None).await?.1;
    let api = app.client(&key);
    let mut later = TestSystem::on(app.system.urls.clone(), app.system.redis_url.clone(), None).await?;
    later.registry = Arc::new(Registry::new(TestKinds::None));
    let later = TestApp::on(later).await?;
    let next_release = later.client(&key);
    for (path, body) in [(JOBS, json!({ "kind": "noop" })), (BATCH, json!({ "jobs": [{ "kind": "noop" }] }))] {
        let first = api.post_once(path, path, &body).await?;
        first.ok(202);
        assert_replayed(&next_release.post_once(path, path, &body).await?, &first);
        assert_eq!(next_release.post_once(path, "unused", &body).await?.status, 422);
        next_release.post_once(path, path, &json!({ "kind": "gone" })).await?.problem(422, "idempotency_key_reused");
    }
    Ok(())
}

/// A body that this release can no longer parse, or with a member it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_key_is_found_before_the_body_is_read() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (path, body) in keyed() {
        let first = api.post_once(path, path, &body).await?;
        assert!(first.status < 300, "{}", first.text);
        for other in ["", "{", "[]", r#"{"kind":1}"#, r#"{"kind":"noop","tenant_id":1}"#, r#"{"kind":"nop"}"#] {
            let request = api.request(&Method::POST, path).header("idempotency-key", path);
            let answer = Answer::to(request.header("content-type", "application/json").body(other)).await?;
            answer.problem(422, "idempotency_key_reused");
            let request = api.request(&Method::POST, path).header("idempotency-key", "never used");
            let unused = Answer::to(request.header("content-type", "application/json").body(other)).await?;
            assert_ne!(unused.body["code"], "idempotency_key_reused", "{path} {other}");
            assert!((400..500).contains(&unused.status), "{path} {other}: {}", unused.text);
        }
        // The refused requests used no key.
        let first = api.post_once(path, "never used", &body).await?;
        assert_eq!((first.status < 300, first.header("idempotency-replayed")), (true, ""), "{}", first.text);
        api.post_once(path, path, &body).await?;
        sqlx_forget(&app, "never used").await?;
    }
    Ok(())
}

async fn sqlx_forget(app: &TestApp, key: &str) -> Result<()> {
    let mut owner = <sqlx::PgConnection as sqlx::Connection>::connect(&app.system.urls.owner).await?;
    sqlx::query("delete from idempotency_keys where key = $1").bind(key).execute(&mut owner).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_permission_repeats_nothing() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let (full, reader) =
        (app.key(tenant, &["jobs:create"], None).await?.1, app.key(tenant, &["jobs:read"], None).await?.1);
    let (body, other) = (json!({ "kind": "noop" }), app.tenant("other").await?.api);
    let first: &ApiClient = &app.client(&full);
    first.post_once(JOBS, "k", &body).await?.ok(202);
    app.client(&reader).post_once(JOBS, "k", &body).await?.problem(403, "forbidden");
    other.post_once(JOBS, "k", &json!({ "kind": "nop" })).await?.problem(422, "unknown_kind");
    Ok(())
}

/// The previous release stored no response for single jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_previous_release_is_answered_from_the_job() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop" });
    let first = api.post_once(JOBS, "old", &body).await?;
    let mut owner = <sqlx::PgConnection as sqlx::Connection>::connect(&app.system.urls.owner).await?;
    sqlx::query("update idempotency_keys set response = null").execute(&mut owner).await?;
    assert_replayed(&api.post_once(JOBS, "old", &body).await?, &first);
    Ok(())
}
