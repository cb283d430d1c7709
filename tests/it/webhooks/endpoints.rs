//! Endpoints: validation, their limit, and secrets shown only once.

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{test_app::TestApp, webhook_sink::WebhookSink};

use super::{ENDPOINTS, LEASE, PATIENCE, endpoint, running, send_test};

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_created_changed_and_deleted() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let made = api.post(ENDPOINTS, &json!({ "url": "https://example.com/hook" })).await?;
    assert_eq!(made.ok(201)["events"], json!(["job.completed", "job.discarded", "job.cancelled"]));
    assert!(made.body["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    let path = made.header("location").to_owned();
    let shown = api.get(&path).await?.ok(200).clone();
    assert!(shown.get("secret").is_none(), "a secret is shown once");
    assert!(api.get(ENDPOINTS).await?.ok(200)["items"][0].get("secret").is_none());

    let changes = json!({ "events": ["job.discarded"], "kinds": ["noop"], "description": "for the pager" });
    let changed = patch(&api, &path, &changes).await?.ok(200).clone();
    assert_eq!((&changed["events"], &changed["kinds"]), (&json!(["job.discarded"]), &json!(["noop"])));
    let changed = patch(&api, &path, &json!({ "kinds": null })).await?.ok(200).clone();
    assert_eq!((&changed["kinds"], &changed["description"]), (&Value::Null, &"for the pager".into()));
    assert_eq!(changed["url"], shown["url"]);
    for member in ["url", "events"] {
        let refused = patch(&api, &path, &json!({ (member): null })).await?;
        assert_eq!(refused.problem(422, "invalid_body")["errors"][0]["pointer"], format!("/{member}"));
    }

    let delete = || api.request(&axum::http::Method::DELETE, &path);
    assert_eq!(tests::test_app::Answer::to(delete()).await?.status, 204);
    tests::test_app::Answer::to(delete()).await?.problem(404, "not_found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_endpoint_is_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let url = "https://example.com/";
    for (body, pointer) in [
        (json!({}), ""),
        (json!({ "url": "http://10.0.0.1/" }), "/url"),
        (json!({ "url": "https://169.254.169.254/latest" }), "/url"),
        (json!({ "url": "https://[::ffff:10.0.0.1]/" }), "/url"),
        (json!({ "url": "https://user@example.com/" }), "/url"),
        (json!({ "url": "https://example.com:25/" }), "/url"),
        (json!({ "url": url, "events": [] }), "/events"),
        (json!({ "url": url, "events": ["job.started"] }), "/events/0"),
        (json!({ "url": url, "kinds": [] }), "/kinds"),
        (json!({ "url": url, "kinds": ["noop", "nope"] }), "/kinds/1"),
        (json!({ "url": url, "kinds": ["deliver_webhook"] }), "/kinds/0"),
        (json!({ "url": url, "description": "x".repeat(201) }), "/description"),
        (json!({ "url": url, "secret": "whsec_mine" }), "/secret"),
        (json!({ "url": url, "tenant_id": "x" }), "/tenant_id"),
        (json!({ "url": url, "disabled_at": null }), "/disabled_at"),
    ] {
        let refused = api.post(ENDPOINTS, &body).await?;
        assert_eq!(refused.problem(422, "invalid_body")["errors"][0]["pointer"], pointer, "{body}: {}", refused.text);
    }
    api.post(ENDPOINTS, &json!({ "url": url, "description": "x".repeat(200) })).await?.ok(201);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_at_most_twenty_endpoints() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let body = json!({ "url": "https://example.com/" });
    let bodies: Vec<Value> = (0..25).map(|at| json!({ "url": format!("https://example.com/{at}") })).collect();
    let asked = futures::future::join_all(bodies.iter().map(|body| api.post(ENDPOINTS, body))).await;
    let statuses: Vec<u16> =
        asked.into_iter().map(|answer| answer.map(|answer| answer.status)).collect::<Result<_>>()?;
    let count = |status: u16| statuses.iter().filter(|&&one| one == status).count();
    assert_eq!(count(201), 20, "{statuses:?}");
    assert_eq!(count(409), 5, "{statuses:?}");
    other.post(ENDPOINTS, &body).await?.ok(201);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_signs_with_both_secrets_until_the_old_one_runs_out() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::answering(&[]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let rotated = api.act(&format!("{}/rotate-secret", endpoint.path)).await?;
    let new = rotated.ok(200)["secret"].as_str().unwrap_or_default().to_owned();
    assert_eq!(rotated.body["old_secret_valid_seconds"], 86_400);
    assert_ne!(new, endpoint.secret);
    send_test(&api, &endpoint).await?;
    let both = sink.wait_for(1, PATIENCE).await.remove(0);
    both.verify(&endpoint.secret)?;
    both.verify(&new)?;

    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    sqlx::query(
        "update webhook_secrets set expires_at = expires_at - interval '24 hours' where expires_at is not null",
    )
    .execute(&mut owner)
    .await?;
    send_test(&api, &endpoint).await?;
    let one = sink.wait_for(2, PATIENCE).await.remove(1);
    one.verify(&new)?;
    assert!(one.verify(&endpoint.secret).is_err(), "the old secret has expired");

    // Five secrets may be valid at once: this one and four more.
    for rotation in 0..5 {
        let answer = api.act(&format!("{}/rotate-secret", endpoint.path)).await?;
        assert_eq!(answer.status, if rotation < 4 { 200 } else { 409 }, "{rotation}: {}", answer.text);
    }
    Ok(())
}

/// The role of the API writes secrets and cannot read any, not even its own tenant's.
#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_role_cannot_read_a_secret() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    tenant.api.post(ENDPOINTS, &json!({ "url": "https://example.com/" })).await?.ok(201);
    let mut transaction = app.system.tenants.begin(tenant.id).await?;
    let refused = sqlx::query("select secret from webhook_secrets").fetch_all(&mut *transaction).await;
    let code = refused.as_ref().err().and_then(|error| error.as_database_error()?.code());
    assert_eq!(code.as_deref(), Some("42501"), "{refused:?}");
    Ok(())
}

async fn patch(api: &tests::test_app::ApiClient, path: &str, body: &Value) -> Result<tests::test_app::Answer> {
    tests::test_app::Answer::to(api.request(&axum::http::Method::PATCH, path).json(body)).await
}
