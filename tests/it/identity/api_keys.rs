//! API keys: never wider than their creator, now or later.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use shared::authz::Role;
use tests::test_app::{ApiClient, TestApp, TestUser};

use super::{becomes, permissions};

const PATH: &str = "/api/v1/api-keys";

/// Creates a key and returns a client with it, and its id.
async fn create(app: &TestApp, creator: &ApiClient, scopes: &[&str]) -> Result<(ApiClient, String)> {
    let answer = creator.post(PATH, &json!({ "name": "key", "scopes": scopes })).await?;
    let key = answer.ok(201);
    let text = key["api_key"].as_str().context("the text of the key")?;
    Ok((app.client(text), answer.id().to_string()))
}

async fn manager(app: &TestApp) -> Result<TestUser> {
    let tenant = app.system.tenant("acme").await?;
    app.signed_in(tenant, Role::Manager, "manager@example.com").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_created_shown_once_and_revoked() -> Result<()> {
    let app = TestApp::start().await?;
    let manager = manager(&app).await?;
    let body = json!({ "name": "ci", "scopes": ["jobs:create", "jobs:read", "jobs:read"] });
    let created = manager.api.post(PATH, &body).await?;
    let key = created.ok(201);
    let text = key["api_key"].as_str().context("the text of the key")?;
    assert!(text.starts_with("rota_key_"), "{text}");
    assert_eq!((&key["state"], &key["created_by"]), (&json!("active"), &json!(manager.id)));
    let path = format!("{PATH}/{}", created.id());
    assert_eq!(created.header("location"), path);
    let shown = manager.api.get(&path).await?.ok(200).clone();
    assert!(shown.get("api_key").is_none() && !shown.to_string().contains(&text[40..]), "{shown}");

    let api = app.client(text);
    assert_eq!(permissions(&api).await?, ["jobs:read", "jobs:create"]);
    let id = api.post("/api/v1/jobs", &json!({ "kind": "noop" })).await?.id();
    api.get(&format!("/api/v1/jobs/{id}")).await?.ok(200);

    assert_eq!(manager.api.delete(&path).await?.status, 204);
    becomes(&api, 401).await;
    assert_eq!(manager.api.get(&path).await?.ok(200)["state"], "revoked");
    assert_eq!(manager.api.delete(&path).await?.status, 204, "twice is once");
    let listed = manager.api.get(PATH).await?.ok(200).clone();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_wider_than_its_creator() -> Result<()> {
    let app = TestApp::start().await?;
    let manager = manager(&app).await?;
    let refused = manager.api.post(PATH, &json!({ "name": "x", "scopes": ["jobs:read", "users:delete"] })).await?;
    assert_eq!(refused.problem(403, "forbidden")["scopes"], json!(["users:delete"]));
    manager.api.post(PATH, &json!({ "name": "x", "role": "admin" })).await?.problem(403, "forbidden");
    manager.api.post(PATH, &json!({ "name": "x", "role": "super_admin" })).await?.problem(403, "forbidden");
    manager.api.post(PATH, &json!({ "name": "x" })).await?.problem(422, "invalid_body");
    manager.api.post(PATH, &json!({ "name": "x", "role": "manager" })).await?.ok(201);
    let viewer = manager.api.post(PATH, &json!({ "name": "x", "role": "viewer" })).await?.ok(201).clone();
    assert_eq!(viewer["scopes"].as_array().map(Vec::len), Some(Role::Viewer.permissions().iter().count()));
    // A key without api_keys:create creates none, and one with it none that is wider.
    let (plain, _) = create(&app, &manager.api, &["jobs:read", "users:write", "users:read"]).await?;
    plain.post(PATH, &json!({ "name": "x", "scopes": ["jobs:read"] })).await?.problem(403, "forbidden");
    let (creating, _) = create(&app, &manager.api, &["jobs:read", "api_keys:create"]).await?;
    creating.post(PATH, &json!({ "name": "x", "scopes": ["jobs:create"] })).await?.problem(403, "forbidden");
    let child = creating.post(PATH, &json!({ "name": "x", "scopes": ["jobs:read"] })).await?.ok(201).clone();
    assert_eq!(child["created_by"], json!(manager.id), "bounded by the same user");
    let user =
        json!({ "email": "eve@example.com", "name": "Eve", "role": "viewer", "password": "violet otters paint" });
    plain.post("/api/v1/users", &user).await?.problem(403, "forbidden");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_loses_what_its_creator_loses() -> Result<()> {
    let app = TestApp::start().await?;
    let manager = manager(&app).await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let (api, id) = create(&app, &manager.api, &["jobs:read", "jobs:control"]).await?;
    assert_eq!(permissions(&api).await?, ["jobs:read", "jobs:control"]);
    let path = format!("/api/v1/users/{}", manager.id);
    admin.api.patch(&path, &json!({ "role": "viewer" })).await?.ok(200);
    let lost = async || permissions(&api).await.is_ok_and(|left| left == ["jobs:read"]).then_some(());
    tests::eventually::eventually(super::EFFECT, "the key has lost jobs:control", lost).await;
    // And gets it back with the role: the key's own scopes are unchanged.
    admin.api.patch(&path, &json!({ "role": "manager" })).await?.ok(200);
    let back = async || permissions(&api).await.is_ok_and(|left| left.len() == 2).then_some(());
    tests::eventually::eventually(super::EFFECT, "the key has jobs:control again", back).await;
    admin.api.act(&format!("{path}/toggle_status")).await?.ok(200);
    becomes(&api, 401).await;
    assert_eq!(admin.api.get(&format!("{PATH}/{id}")).await?.ok(200)["state"], "suspended");
    admin.api.act(&format!("{path}/toggle_status")).await?.ok(200);
    becomes(&api, 200).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_keeps_its_scopes_and_works_for_a_day() -> Result<()> {
    let app = TestApp::start().await?;
    let manager = manager(&app).await?;
    let tenant = app.system.tenant("acme").await?;
    let (api, id) = create(&app, &manager.api, &["jobs:read"]).await?;
    let rotated = manager.api.act(&format!("{PATH}/{id}/rotate")).await?;
    let successor = rotated.ok(201);
    assert_eq!(successor["scopes"], json!(["jobs:read"]));
    becomes(&app.client(successor["api_key"].as_str().context("the text")?), 200).await;
    becomes(&api, 200).await;
    let old = manager.api.get(&format!("{PATH}/{id}")).await?.ok(200).clone();
    assert_eq!(old["replaced_by"], json!(rotated.id()));
    let expires_at: chrono::DateTime<chrono::Utc> = old["expires_at"].as_str().context("no time")?.parse()?;
    assert!((86_000..=86_400).contains(&(expires_at - app.system.clock.now()).num_seconds()), "{expires_at}");
    manager.api.act(&format!("{PATH}/{id}/rotate")).await?.problem(409, "conflict");
    // Whoever rotates a key learns its successor, so it must not hold more than they do.
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let (_, wide) = create(&app, &admin.api, &["payments:refund"]).await?;
    manager.api.act(&format!("{PATH}/{wide}/rotate")).await?.problem(403, "forbidden");
    // And from then on it is bounded by them.
    let (_, of_manager) = create(&app, &manager.api, &["jobs:read"]).await?;
    let taken_over = admin.api.act(&format!("{PATH}/{of_manager}/rotate")).await?.ok(201).clone();
    assert_eq!(taken_over["created_by"], json!(admin.id));
    let (_, revoked) = create(&app, &admin.api, &["jobs:read"]).await?;
    manager.api.delete(&format!("{PATH}/{revoked}")).await?;
    let refused = manager.api.act(&format!("{PATH}/{revoked}/rotate")).await?;
    assert_eq!(refused.problem(409, "conflict")["state"], "revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_created_is_refused_with_all_reasons() -> Result<()> {
    let app = TestApp::start().await?;
    let manager = manager(&app).await?;
    let pointers = |answer: &Value| -> Vec<String> {
        answer["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|error| error["pointer"].as_str().map(str::to_owned))
            .collect()
    };
    for (body, expected) in [
        (
            json!({ "name": "", "scopes": ["jobs:read", "jobs:all", "*"], "expires_at": "2020-01-01T00:00:00Z" }),
            vec!["/name", "/expires_at", "/scopes/1", "/scopes/2"],
        ),
        (json!({ "name": "x".repeat(101), "scopes": ["jobs:read"] }), vec!["/name"]),
        (json!({ "name": "x", "scopes": [] }), vec!["/scopes"]),
        (json!({ "name": "x", "scopes": vec!["jobs:read"; 101] }), vec!["/scopes"]),
        (json!({ "name": "x", "scopes": ["jobs:read"], "role": "viewer" }), vec!["/role"]),
        (json!({ "name": "x", "role": "emperor" }), vec!["/role"]),
    ] {
        let answer = manager.api.post(PATH, &body).await?;
        assert_eq!(pointers(answer.problem(422, "invalid_body")), expected, "{body}");
    }
    manager.api.post(PATH, &json!({ "name": "x".repeat(100), "scopes": ["jobs:read"] })).await?.ok(201);
    Ok(())
}

/// A wrong checksum is refused without a query: the database is away, and the answer is the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_key_is_refused_without_the_database() -> Result<()> {
    let system = tests::system::TestSystem::start().await?;
    let app = TestApp::on(system).await?;
    let tenant = app.tenant("acme").await?;
    let (_, text) = app.key(tenant.id, &["jobs:read"], None).await?;
    let last = if text.ends_with('0') { "1" } else { "0" };
    let mistyped = app.client(&format!("{}{last}", &text[..text.len() - 1]));
    let before: i64 = tests::sql::one(
        &app.system.urls.owner,
        "select sum(idx_scan)::bigint from pg_stat_user_tables where relname = 'api_keys'",
    )
    .await?;
    for _ in 0..50 {
        mistyped.get("/api/v1/jobs").await?.problem(401, "unauthenticated");
    }
    // Statistics arrive late, and only grow.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let after: i64 = tests::sql::one(
        &app.system.urls.owner,
        "select sum(idx_scan)::bigint from pg_stat_user_tables where relname = 'api_keys'",
    )
    .await?;
    assert!(after - before < 10, "{before} look-ups became {after}");
    Ok(())
}

/// A key of the first format, as earlier releases issued it, keeps working.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_first_format_keeps_working() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let insert = format!(
        "insert into api_keys (tenant_id, id, name, secret_hash, scopes)
         values ('{tenant}', '00000000-0000-0000-0000-000000000000', 'old', sha256(decode(repeat('00', 32), 'hex')), '{{jobs:read}}')"
    );
    tests::sql::execute(&app.system.urls.owner, &insert).await?;
    let api = app.client(&format!("rota_{}_{}", "a".repeat(26), "a".repeat(52)));
    assert_eq!(permissions(&api).await?, ["jobs:read"]);
    Ok(())
}
