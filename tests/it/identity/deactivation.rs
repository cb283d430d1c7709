//! A deactivated user is out within five seconds, on every API and on open streams.

use anyhow::Result;
use serde_json::json;
use shared::authz::Role;
use tests::test_app::{PASSWORD, TestApp};

use super::becomes;

#[tokio::test(flavor = "multi_thread")]
async fn a_deactivated_user_is_out_everywhere() -> Result<()> {
    let app = TestApp::start().await?;
    let (other_api, _stop) = app.another_api().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let ada = app.signed_in(tenant, Role::Manager, "ada@example.com").await?;
    let on_other = other_api.with_token(ada.tokens["access_token"].as_str().unwrap_or_default());
    let key =
        ada.api.post("/api/v1/api-keys", &json!({ "name": "ci", "scopes": ["jobs:read"] })).await?.ok(201).clone();
    let key = app.client(key["api_key"].as_str().unwrap_or_default());
    for api in [&on_other, &key, &ada.api] {
        becomes(api, 200).await;
    }
    let job = ada.api.post("/api/v1/jobs", &json!({ "kind": "noop", "run_at": "2999-01-01T00:00:00Z" })).await?.id();
    let stream = ada.api.request(&axum::http::Method::GET, &format!("/api/v1/jobs/{job}/events")).send().await?;
    assert_eq!(stream.status(), 200);

    let path = format!("/api/v1/users/{}/toggle_status", ada.id);
    assert_eq!(admin.api.act(&path).await?.ok(200)["state"], "deactivated");
    // What would act longer than the user is refused at once, wherever the user was known.
    let user =
        json!({ "email": "eve@example.com", "name": "Eve", "role": "manager", "password": "violet otters paint" });
    let lasting = json!({ "name": "late", "scopes": ["jobs:read"] });
    for api in [&on_other, &ada.api] {
        api.post("/api/v1/users", &user).await?.problem(401, "unauthenticated");
        api.post("/api/v1/api-keys", &lasting).await?.problem(401, "unauthenticated");
    }
    for api in [&on_other, &key, &ada.api] {
        becomes(api, 401).await;
    }
    let refresh = json!({ "refresh_token": ada.tokens["refresh_token"] });
    app.anonymous().post("/api/v1/auth/token/refresh", &refresh).await?.problem(401, "unauthenticated");
    let password = json!({ "email": "ada@example.com", "password": PASSWORD });
    app.anonymous().post("/api/v1/auth/token", &password).await?.problem(401, "unauthenticated");
    // The stream ends: its body is read to the end.
    tokio::time::timeout(2 * super::EFFECT, stream.text()).await??;

    assert_eq!(admin.api.act(&path).await?.ok(200)["state"], "active");
    app.anonymous().post("/api/v1/auth/token", &password).await?.ok(200);
    // The sessions from before stay ended.
    becomes(&ada.api, 401).await;
    Ok(())
}
