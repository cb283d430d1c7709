//! API clients: tokens for an id and a secret, within what the creator may do.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shared::authz::Role;
use tests::test_app::{Answer, ApiClient, TestApp};

use super::{becomes, permissions};

const PATH: &str = "/api/v1/api-clients";
const TOKEN: &str = "/api/v1/auth/api-client/token";

async fn create(creator: &ApiClient, scopes: &[&str]) -> Result<Value> {
    Ok(creator.post(PATH, &json!({ "name": "client", "scopes": scopes })).await?.ok(201).clone())
}

async fn token(app: &TestApp, client: &Value) -> Result<Answer> {
    let body = json!({ "client_id": client["client_id"], "client_secret": client["client_secret"] });
    app.anonymous().post(TOKEN, &body).await
}

fn with(app: &TestApp, pair: &Value) -> ApiClient {
    app.anonymous().with_token(pair["access_token"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_tokens_refreshes_and_is_revoked() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let client = create(&admin.api, &["jobs:read", "jobs:create"]).await?;
    let secret = client["client_secret"].as_str().context("a secret")?;
    assert!(secret.starts_with("rota_client_"), "{secret}");
    let pair = token(&app, &client).await?.ok(200).clone();
    assert_eq!(pair["subject_id"], client["client_id"]);
    let api = with(&app, &pair);
    assert_eq!(permissions(&api).await?, ["jobs:read", "jobs:create"]);
    api.post("/api/v1/jobs", &json!({ "kind": "noop" })).await?.ok(202);
    let refused = api.get("/api/v1/users").await?;
    assert_eq!(refused.problem(403, "forbidden")["detail"], "the API client lacks the scope users:read");
    let refresh = json!({ "refresh_token": pair["refresh_token"] });
    let next = app.anonymous().post(&format!("{TOKEN}/refresh"), &refresh).await?.ok(200).clone();
    becomes(&with(&app, &next), 200).await;
    // The refresh token of a client is not one of a user, and the other way round.
    app.anonymous().post("/api/v1/auth/token/refresh", &refresh).await?.problem(401, "unauthenticated");
    let of_user = json!({ "refresh_token": admin.tokens["refresh_token"] });
    app.anonymous().post(&format!("{TOKEN}/refresh"), &of_user).await?.problem(401, "unauthenticated");

    let path = format!("{PATH}/{}", client["client_id"].as_str().context("an id")?);
    let shown = admin.api.get(&path).await?.ok(200).clone();
    assert!(shown["state"] == "active" && shown.get("client_secret").is_none(), "{shown}");
    assert_eq!(admin.api.delete(&path).await?.status, 204);
    becomes(&api, 401).await;
    token(&app, &client).await?.problem(401, "unauthenticated");
    assert_eq!(admin.api.get(&path).await?.ok(200)["state"], "revoked");
    let uses = admin.api.get(&format!("{path}/uses")).await?.ok(200).clone();
    let told: Vec<_> = uses["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["action"].as_str(), one["succeeded"].as_bool()))
        .collect();
    assert_eq!(told, [(Some("token"), Some(false)), (Some("refresh"), Some(true)), (Some("token"), Some(true))]);
    assert_eq!(uses["items"][0]["address"], "127.0.0.1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_tell_why() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let (client, other) = (create(&admin.api, &["jobs:read"]).await?, create(&admin.api, &["jobs:read"]).await?);
    let rotated = format!("{PATH}/{}/rotate-secret", other["client_id"].as_str().context("an id")?);
    let renewed = admin.api.act(&rotated).await?.ok(200).clone();
    token(&app, &renewed).await?.ok(200);
    assert_eq!(renewed["created_by"], json!(admin.id));
    let mut texts = std::collections::BTreeSet::new();
    for (id, secret) in [
        (&client["client_id"], json!("x")),
        (&client["client_id"], other["client_secret"].clone()),
        (&other["client_id"], other["client_secret"].clone()),
        (&json!("00000000-0000-7000-8000-000000000000"), client["client_secret"].clone()),
    ] {
        let body = json!({ "client_id": id, "client_secret": secret });
        let mut problem = app.anonymous().post(TOKEN, &body).await?.problem(401, "unauthenticated").clone();
        problem["request_id"].take();
        texts.insert(problem.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_never_may_do_more_than_its_creator() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let second = app.signed_in(tenant, Role::Admin, "second@example.com").await?;
    let key = json!({ "name": "key", "scopes": ["api_clients:create", "jobs:read"] });
    let key = admin.api.post("/api/v1/api-keys", &key).await?.ok(201).clone();
    let key = app.client(key["api_key"].as_str().context("the text")?);
    let wide = json!({ "name": "client", "scopes": ["jobs:read", "jobs:create"] });
    assert_eq!(key.post(PATH, &wide).await?.problem(403, "forbidden")["scopes"], json!(["jobs:create"]));
    key.post(PATH, &json!({ "name": "client", "scopes": [] })).await?.problem(422, "invalid_body");
    let client = create(&second.api, &["jobs:read", "payments:refund"]).await?;
    let api = with(&app, token(&app, &client).await?.ok(200));
    assert_eq!(permissions(&api).await?.len(), 2);
    let path = format!("/api/v1/users/{}", second.id);
    admin.api.patch(&path, &json!({ "role": "viewer" })).await?.ok(200);
    let narrowed = async || permissions(&api).await.is_ok_and(|left| left == ["jobs:read"]).then_some(());
    tests::eventually::eventually(super::EFFECT, "the client has lost payments:refund", narrowed).await;
    admin.api.act(&format!("{path}/toggle_status")).await?.ok(200);
    becomes(&api, 401).await;
    token(&app, &client).await?.problem(401, "unauthenticated");
    let id = client["client_id"].as_str().context("an id")?;
    assert_eq!(admin.api.get(&format!("{PATH}/{id}")).await?.ok(200)["state"], "suspended");
    Ok(())
}
