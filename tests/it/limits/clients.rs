//! Anonymous clients are counted by network, which only trusted proxies may name.

use anyhow::Result;
use axum::http::Method;
use serde_json::{Value, json};
use shared::config::RateLimitConfig;
use tests::{
    system::TestSystem,
    test_app::{Answer, AppLimits, TestApp},
};

use super::{ANONYMOUS, limited_app, limits};

/// Sends a request on behalf of a client.
async fn send(app: &TestApp, path: &str, forwarded_for: &str, body: &Value) -> Result<Answer> {
    let request = app.anonymous().request(&Method::POST, path).header("x-forwarded-for", forwarded_for);
    Answer::to(request.json(body)).await
}

async fn verify(app: &TestApp, forwarded_for: &str) -> Result<Answer> {
    send(app, ANONYMOUS, forwarded_for, &json!({ "token": "x" })).await
}

async fn behind_a_proxy() -> Result<TestApp> {
    let rates = RateLimitConfig { trusted_proxies: vec!["127.0.0.0/8".parse()?], ..limits().rates };
    TestApp::with(TestSystem::start().await?, AppLimits { rates, ..limits() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_choose_an_address() -> Result<()> {
    let app = limited_app().await?;
    for number in 0..50 {
        let answer = verify(&app, &format!("203.0.113.{number}")).await?;
        answer.ok(200);
        assert_eq!(answer.header("ratelimit-policy"), r#""anonymous";q=50;w=3600"#);
    }
    let refused = verify(&app, "203.0.113.200").await?;
    assert_eq!(refused.problem(429, "rate_limited")["violated-policies"], json!(["anonymous"]));
    // A credential has limits of its own.
    app.tenant("acme").await?.api.get("/api/v1/usage").await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_each_network_is_counted() -> Result<()> {
    let app = behind_a_proxy().await?;
    for number in 0..50 {
        // What is left of the last address was sent by the client.
        verify(&app, &format!("198.51.100.{number}, 2001:db8::{number}")).await?.ok(200);
    }
    verify(&app, "2001:db8:0:0:ffff::1").await?.problem(429, "rate_limited");
    verify(&app, "2001:db8:0:1::1").await?.ok(200);
    verify(&app, "203.0.113.1").await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_sign_in_are_counted_by_the_same_address() -> Result<()> {
    // Also where the rate of requests is not limited.
    let rates = RateLimitConfig { trusted_proxies: vec!["127.0.0.0/8".parse()?], enabled: false };
    let app = TestApp::with(TestSystem::start().await?, AppLimits { rates, ..AppLimits::default() }).await?;
    let guess = json!({ "email": "ada@example.com", "password": "a guess of somebody" });
    let attempt = async |from: &str| send(&app, "/api/v1/auth/token", from, &guess).await;
    for _ in 0..10 {
        attempt("203.0.113.1").await?.problem(401, "unauthenticated");
    }
    attempt("203.0.113.1").await?.problem(429, "rate_limited");
    attempt("203.0.113.2").await?.problem(401, "unauthenticated");
    Ok(())
}
