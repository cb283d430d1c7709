//! The rotation of refresh tokens: concurrent uses, lost answers, copies.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use futures::future::try_join_all;
use serde_json::{Value, json};
use shared::authz::Role;
use tests::{
    sql,
    tcp_proxy::{Mode, TcpProxy},
    test_app::{Answer, ApiClient, TestApp},
};

use super::becomes;

async fn refresh(api: &ApiClient, pair: &Value) -> Result<Answer> {
    api.post("/api/v1/auth/token/refresh", &json!({ "refresh_token": pair["refresh_token"] })).await
}

/// Lets the newest tokens of all sessions be this old.
async fn age(app: &TestApp, seconds: u32) -> Result<()> {
    let older = format!(
        "update sessions set issued_at = issued_at - interval '{seconds} s', expires_at = expires_at - interval '{seconds} s'"
    );
    sql::execute(&app.system.urls.owner, &older).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_returns_the_next_pair() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    age(&app, 60).await?;
    let next = refresh(&app.anonymous(), &ada.tokens).await?.ok(200).clone();
    assert_ne!(next["refresh_token"], ada.tokens["refresh_token"]);
    assert_ne!(next["access_token"], ada.tokens["access_token"]);
    becomes(&app.anonymous().with_token(next["access_token"].as_str().unwrap()), 200).await;
    // The first access token is valid until it expires.
    becomes(&ada.api, 200).await;
    Ok(())
}

/// Twenty uses at once, on two APIs: one successor, nobody is signed out.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uses_get_the_same_pair() -> Result<()> {
    let app = TestApp::start().await?;
    let (second, _stop) = app.another_api().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let mut pair = ada.tokens;
    let apis = [app.anonymous(), second];
    for _ in 0..5 {
        let uses = (0..20).map(|number| refresh(&apis[number % 2], &pair));
        let answers: Vec<Value> = try_join_all(uses).await?.iter().map(|answer| answer.ok(200).clone()).collect();
        let distinct: BTreeSet<String> = answers.iter().map(Value::to_string).collect();
        assert_eq!(distinct.len(), 1, "one successor");
        assert_ne!(answers[0]["refresh_token"], pair["refresh_token"]);
        pair = answers[0].clone();
    }
    Ok(())
}

/// A client whose answers are cut off repeats its request, and ends with the tokens that it lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_nobody_the_session() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let (url, proxy) = TcpProxy::before(&format!("http://{}", app.address())).await?;
    let lossy = ApiClient::new(&url, None);
    for number in 0..20 {
        let user = app.signed_in(tenant, Role::Viewer, &format!("user-{number}@example.com")).await?;
        proxy.set(Mode::DropReply);
        let lost = tokio::time::timeout(Duration::from_millis(300), refresh(&lossy, &user.tokens)).await;
        assert!(!matches!(lost, Ok(Ok(_))), "the answer was lost");
        proxy.set(Mode::Reset);
        proxy.set(Mode::Pass);
        let again = refresh(&lossy, &user.tokens).await?.ok(200).clone();
        becomes(&app.anonymous().with_token(again["access_token"].as_str().unwrap()), 200).await;
        refresh(&app.anonymous(), &again).await?.ok(200);
    }
    Ok(())
}

/// Both sides of the 30 seconds: within them the predecessor returns the newest pair each time,
/// later once.
#[tokio::test(flavor = "multi_thread")]
async fn the_predecessor_works_for_a_while_and_once_later() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let anonymous = app.anonymous();
    let next = refresh(&anonymous, &ada.tokens).await?.ok(200).clone();
    age(&app, 25).await?;
    let within = refresh(&anonymous, &ada.tokens).await?.ok(200).clone();
    assert_eq!(within["refresh_token"], next["refresh_token"]);
    age(&app, 10).await?;
    let late = refresh(&anonymous, &ada.tokens).await?.ok(200).clone();
    assert_eq!(late["refresh_token"], next["refresh_token"], "the newest was never used");
    age(&app, 35).await?;
    refresh(&anonymous, &ada.tokens).await?.problem(401, "unauthenticated");
    // The session lives: only the newest token gets on.
    refresh(&anonymous, &next).await?.ok(200);
    Ok(())
}

/// Whoever has a copy of a refresh token cannot follow the session one token behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_forgives_one_late_predecessor_in_its_life() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let anonymous = app.anonymous();
    let second = refresh(&anonymous, &ada.tokens).await?.ok(200).clone();
    age(&app, 35).await?;
    refresh(&anonymous, &ada.tokens).await?.ok(200);
    let third = refresh(&anonymous, &second).await?.ok(200).clone();
    age(&app, 35).await?;
    refresh(&anonymous, &second).await?.problem(401, "unauthenticated");
    refresh(&anonymous, &third).await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_two_generations_old_ends_the_session() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let anonymous = app.anonymous();
    let second = refresh(&anonymous, &ada.tokens).await?.ok(200).clone();
    let third = refresh(&anonymous, &second).await?.ok(200).clone();
    // Within the grace it may be a delayed request, so it is refused and nothing more.
    refresh(&anonymous, &ada.tokens).await?.problem(401, "unauthenticated");
    let api = anonymous.with_token(third["access_token"].as_str().unwrap());
    becomes(&api, 200).await;
    age(&app, 35).await?;
    refresh(&anonymous, &ada.tokens).await?.problem(401, "unauthenticated");
    becomes(&api, 401).await;
    refresh(&anonymous, &third).await?.problem(401, "unauthenticated");
    let reason: String = sql::one(&app.system.urls.owner, "select end_reason from sessions").await?;
    assert_eq!(reason, "token_reused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_refresh_tokens_lifetime() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    age(&app, 7 * 24 * 3600 - 30).await?;
    let next = refresh(&app.anonymous(), &ada.tokens).await?.ok(200).clone();
    age(&app, 7 * 24 * 3600 + 1).await?;
    refresh(&app.anonymous(), &next).await?.problem(401, "unauthenticated");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_token_is_refused_and_ends_nothing() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let text = ada.tokens["refresh_token"].as_str().unwrap().to_owned();
    let mac = text.rsplit('_').next().unwrap();
    let mut forged = vec![String::new(), "x".into(), ada.tokens["access_token"].as_str().unwrap().into()];
    forged.extend(["_0_", "_2_", "_-1_", "_99_"].map(|number| text.replace("_1_", number)));
    forged.push(text.replace(mac, &"A".repeat(mac.len())));
    forged.push(text.to_uppercase());
    for token in forged {
        let answer = app.anonymous().post("/api/v1/auth/token/refresh", &json!({ "refresh_token": token })).await?;
        assert_eq!(answer.status, 401, "{token}: {}", answer.text);
    }
    refresh(&app.anonymous(), &ada.tokens).await?.ok(200);
    Ok(())
}
