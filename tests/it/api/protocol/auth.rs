//! Authentication, and the refusal of a key without the required scope.

use std::time::Instant;

use anyhow::Result;
use axum::http::{HeaderValue, Method};
use chrono::TimeDelta;
use shared::identity::api_key::ApiKeySecret;
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{Answer, TestApp},
};
use uuid::Uuid;

use crate::api::{PATIENCE, redacted};

const KINDS: &str = "/api/v1/job-kinds";

async fn revoke(app: &TestApp, key: Uuid) -> Result<()> {
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    let revoke = sqlx::query("update api_keys set revoked_at = now() where id = $1").bind(key);
    assert_eq!(revoke.execute(&mut owner).await?.rows_affected(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_valid_key_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let (now, minute) = (app.system.clock.now(), TimeDelta::minutes(1));
    let (good_id, good) = app.key(tenant, &["jobs:read"], Some(now + minute)).await?;
    app.client(&good).get(KINDS).await?.ok(200);
    let expired = app.key(tenant, &["jobs:read"], Some(now - minute)).await?.1;
    let (revoked_id, revoked) = app.key(tenant, &["jobs:read"], None).await?;
    revoke(&app, revoked_id).await?;
    let (prefix, secret) = good.rsplit_once('_').expect("rota_id_secret");
    let bad = [
        ("empty", String::new()),
        ("malformed", "nonsense".to_owned()),
        ("short", format!("{prefix}_aaaa")),
        ("of another prefix", good.replacen("rota", "atro", 1)),
        ("with the secret alone", secret.to_owned()),
        ("with another secret", ApiKeySecret::random().present(good_id)),
        ("of an unknown id", ApiKeySecret::random().present(Uuid::max())),
        ("with something after it", format!("{good}_x")),
        ("expired", expired),
        ("revoked", revoked),
    ];
    for (what, key) in bad {
        let answer = app.client(&key).get(KINDS).await?;
        assert_eq!(answer.status, 401, "a key {what}: {}", answer.text);
        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), r#"ApiKey realm="rota", Bearer realm="rota""#);
        assert!(!answer.text.contains(secret), "the response contains the key");
    }
    let odd = app.anonymous().request(&Method::GET, KINDS).header("x-api-key", HeaderValue::from_bytes(b"\xff\xfe")?);
    Answer::to(odd).await?.problem(401, "unauthenticated");
    let mut none = app.anonymous().get(KINDS).await?.problem(401, "unauthenticated").clone();
    none["request_id"] = "[id]".into();
    insta::assert_json_snapshot!(redacted(none), @r#"
    {
      "code": "unauthenticated",
      "detail": "send an API key in X-API-Key, or an access token in Authorization",
      "instance": "/api/v1/job-kinds",
      "request_id": "[id]",
      "status": 401,
      "title": "Not authenticated",
      "type": "/problems/unauthenticated"
    }
    "#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_scope_is_named() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    // An unknown scope grants nothing and does not affect the others.
    let reader = app.client(&app.key(tenant, &["jobs:read", "jobs:everything"], None).await?.1);
    reader.get("/api/v1/jobs").await?.ok(200);
    let answer = reader.post("/api/v1/jobs", &serde_json::json!({ "kind": "noop" })).await?;
    assert_eq!(answer.problem(403, "forbidden")["detail"], "the API key lacks the scope jobs:create");
    let none = app.client(&app.key(tenant, &[], None).await?.1);
    none.get("/api/v1/jobs").await?.problem(403, "forbidden");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_working_within_seconds() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let (id, key) = app.key(tenant, &["jobs:read"], None).await?;
    let client = app.client(&key);
    client.get(KINDS).await?.ok(200);
    revoke(&app, id).await?;
    let revoked = Instant::now();
    // Constant use must not keep a revoked key valid.
    let refused = eventually(PATIENCE, "the key is refused", async || {
        let answer = client.get(KINDS).await.ok()?;
        (answer.status == 401).then_some(answer)
    });
    refused.await.problem(401, "unauthenticated");
    assert!(revoked.elapsed().as_secs() < 8, "the key worked for {:?}; the documented limit is 5 s", revoked.elapsed());
    client.get(KINDS).await?.problem(401, "unauthenticated");
    Ok(())
}
