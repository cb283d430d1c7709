//! Companies that an operator suspended.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use shared::{authz::Role, store::tenants::OwnerConnection};
use tests::{
    eventually::eventually,
    test_app::{PASSWORD, TestApp},
};

use super::{EFFECT, becomes};

const CODE: &str = "company_suspended";

async fn set_suspended(app: &TestApp, slug: &str, is_suspended: bool) -> Result<bool> {
    let mut owner = OwnerConnection::open(&app.system.urls.owner).await?;
    Ok(owner.set_suspended(slug, is_suspended, "unpaid").await?)
}

fn password(text: &str) -> Value {
    json!({ "email": "ada@example.com", "password": text })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_credential_of_a_suspended_company_is_refused_until_it_is_reactivated() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?, app.tenant("other").await?);
    let ada = app.signed_in(acme.id, Role::Admin, "ada@example.com").await?;
    let client = json!({ "name": "client", "scopes": ["jobs:read"] });
    let client = ada.api.post("/api/v1/api-clients", &client).await?.ok(201).clone();
    let secret = json!({ "client_id": client["client_id"], "client_secret": client["client_secret"] });
    let pair = app.anonymous().post("/api/v1/auth/api-client/token", &secret).await?.ok(200).clone();
    let program = app.anonymous().with_token(pair["access_token"].as_str().unwrap_or_default());
    for api in [&acme.api, &ada.api, &program] {
        becomes(api, 200).await;
    }
    let job = ada.api.post("/api/v1/jobs", &json!({ "kind": "noop", "run_at": "2999-01-01T00:00:00Z" })).await?.id();
    let stream = ada.api.request(&axum::http::Method::GET, &format!("/api/v1/jobs/{job}/events")).send().await?;
    assert_eq!(stream.status(), 200);

    assert!(set_suspended(&app, "acme", true).await?);
    for api in [&acme.api, &ada.api, &program] {
        becomes(api, 403).await.problem(403, CODE);
        api.get("/api/v1/jobs").await?.problem(403, CODE);
    }
    tokio::time::timeout(2 * EFFECT, stream.text()).await??;
    let anonymous = app.anonymous();
    let verified = json!({ "token": ada.tokens["access_token"] });
    assert_eq!(anonymous.post("/api/v1/auth/token/verify", &verified).await?.ok(200)["active"], false);
    for (path, refresh) in [("token", &ada.tokens), ("api-client/token", &pair)] {
        let body = json!({ "refresh_token": refresh["refresh_token"] });
        anonymous.post(&format!("/api/v1/auth/{path}/refresh"), &body).await?.problem(403, CODE);
    }
    anonymous.post("/api/v1/auth/api-client/token", &secret).await?.problem(403, CODE);
    // Only who knows the password learns of it.
    anonymous.post("/api/v1/auth/token", &password("another password")).await?.problem(401, "unauthenticated");
    anonymous.post("/api/v1/auth/token", &password(PASSWORD)).await?.problem(403, CODE);
    becomes(&other.api, 200).await;

    assert!(set_suspended(&app, "acme", false).await?);
    for api in [&acme.api, &ada.api, &program] {
        becomes(api, 200).await;
    }
    let refresh = json!({ "refresh_token": ada.tokens["refresh_token"] });
    anonymous.post("/api/v1/auth/token/refresh", &refresh).await?.ok(200);
    anonymous.post("/api/v1/auth/token", &password(PASSWORD)).await?.ok(200);
    assert!(!set_suspended(&app, "no-such", true).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_suspended_company_go_on() -> Result<()> {
    let app = TestApp::start().await?;
    let acme = app.tenant("acme").await?;
    for job in [json!({ "kind": "sleep", "args": { "ms": 500 } }), json!({ "kind": "noop" })] {
        acme.api.post("/api/v1/jobs", &job).await?;
    }
    set_suspended(&app, "acme", true).await?;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(1, Duration::from_secs(5)));
    eventually(Duration::from_secs(30), "both jobs complete", async || {
        let query = "select count(*) from jobs where state = 'completed'";
        let completed: i64 = tests::sql::one(&app.system.urls.owner, query).await.ok()?;
        (completed == 2).then_some(())
    })
    .await;
    scheduler.stop().await;
    worker.stop().await
}

/// The first reason and time are those of the suspension; a repetition changes the reason only.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_has_a_time_and_a_reason() -> Result<()> {
    let app = TestApp::start().await?;
    app.tenant("acme").await?;
    let column = async |what: &str| -> Result<Option<String>> {
        let query = format!("select {what}::text from tenants where slug = 'acme'");
        tests::sql::one(&app.system.urls.owner, &query).await
    };
    assert_eq!((column("suspended_at").await?, column("suspension_reason").await?), (None, None));
    set_suspended(&app, "acme", true).await?;
    let at = column("suspended_at").await?;
    assert!(at.is_some() && column("suspension_reason").await? == Some("unpaid".into()));
    set_suspended(&app, "acme", true).await?;
    assert_eq!(column("suspended_at").await?, at);
    set_suspended(&app, "acme", false).await?;
    assert_eq!(column("suspended_at").await?, None);
    Ok(())
}
