//! One message: signed, retried, given up, held, and redelivered.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{ApiClient, TestApp},
    webhook_sink::{Reply, WebhookSink},
};

use super::{LEASE, PATIENCE, delivery_in, endpoint, running, send_test};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_signed_and_recorded_as_delivered() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::start(vec![Reply { status: 204, ..Reply::default() }]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let path = send_test(&api, &endpoint).await?;
    let received = sink.wait_for(1, PATIENCE).await.remove(0);
    received.verify(&endpoint.secret)?;
    let (id, age) = (received.header("webhook-id"), received.header("webhook-timestamp").parse::<i64>()?);
    assert!(path.ends_with(id), "{id} of {path}");
    assert!((app.system.clock.now().timestamp() - age).abs() < 60, "{age} hours");
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.json()["type"], "webhook.test");
    assert!(endpoint.path.ends_with(received.json()["data"]["endpoint_id"].as_str().unwrap_or("none")));
    let delivery = delivery_in(&api, &path, "delivered", 1).await;
    assert_eq!(delivery["attempts"][0]["status"], 204);
    assert_eq!(delivery["body"], received.json(), "what is shown is what was sent");
    assert!(delivery["next_attempt_at"].is_null() && delivery["delivered_at"].is_string(), "{delivery}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_retried_unchanged_and_a_success_resets_the_failures() -> Result<()> {
    running!(app, api);
    let answer = Reply { status: 500, body: "\0x".repeat(5_000), ..Reply::default() };
    let sink = WebhookSink::start(vec![answer]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let path = send_test(&api, &endpoint).await?;
    let failed = delivery_in(&api, &path, "pending", 1).await;
    assert!(failed["next_attempt_at"].is_string(), "{failed}");
    assert_eq!(failed["attempts"][0]["error"], "the endpoint answered 500");
    assert_eq!(failed["attempts"][0]["answer"].as_str().map(|text| text.chars().count()), Some(1_024), "bounded");
    assert!(api.get(&endpoint.path).await?.ok(200)["failing_since"].is_string());
    let received = sink.wait_for(2, PATIENCE).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[0].body, received[1].body);
    for message in &received {
        message.verify(&endpoint.secret)?;
    }
    delivery_in(&api, &path, "delivered", 2).await;
    assert!(api.get(&endpoint.path).await?.ok(200)["failing_since"].is_null());
    drop(app);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_disables_the_endpoint_and_fails_the_message() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::answering(&[410]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let path = send_test(&api, &endpoint).await?;
    delivery_in(&api, &path, "failed", 1).await;
    let disabled = api.get(&endpoint.path).await?;
    assert_eq!((&disabled.ok(200)["enabled"], &disabled.body["disabled_reason"]), (&false.into(), &"gone".into()));
    let refused = api.act(&format!("{}/test", endpoint.path)).await?;
    assert_eq!(refused.problem(409, "conflict")["disabled_reason"], "gone");
    api.act(&format!("{path}/redeliver")).await?.problem(409, "conflict");

    assert_eq!(api.act(&format!("{}/enable", endpoint.path)).await?.ok(200)["enabled"], true);
    api.act(&format!("{path}/redeliver")).await?.ok(202);
    delivery_in(&api, &path, "delivered", 2).await;
    assert_eq!(sink.received().len(), 2);
    drop(app);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_and_is_not_followed() -> Result<()> {
    running!(app, api);
    let inside = WebhookSink::answering(&[]).await?;
    let redirect = Reply { status: 307, location: Some(inside.url()), ..Reply::default() };
    let sink = WebhookSink::start(vec![redirect]).await?;
    let path = send_test(&api, &endpoint(&api, &sink).await?).await?;
    assert_eq!(delivery_in(&api, &path, "pending", 1).await["attempts"][0]["status"], 307);
    assert!(inside.received().is_empty());
    drop(app);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_response_times_out() -> Result<()> {
    running!(app, api);
    let slow = Reply { status: 200, delay: Duration::from_mins(5), ..Reply::default() };
    let sink = WebhookSink::start(vec![slow]).await?;
    let path = send_test(&api, &endpoint(&api, &sink).await?).await?;
    let attempt = delivery_in(&api, &path, "pending", 1).await["attempts"][0].clone();
    assert_eq!(attempt["error"], "no answer within 15 s");
    assert!(attempt["status"].is_null() && attempt["duration_ms"].as_u64() >= Some(15_000), "{attempt}");
    drop(app);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_disabled_endpoint_are_sent_when_it_is_enabled() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let sink = WebhookSink::answering(&[]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let path = send_test(&api, &endpoint).await?;
    api.act(&format!("{path}/redeliver")).await?.problem(409, "conflict");
    assert_eq!(api.act(&format!("{}/disable", endpoint.path)).await?.ok(200)["disabled_reason"], "manual");
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    delivery_in(&api, &path, "held", 0).await;
    assert!(sink.received().is_empty());
    assert_eq!(api.act(&format!("{}/enable", endpoint.path)).await?.ok(200)["released"], 1);
    delivery_in(&api, &path, "delivered", 1).await;
    assert_eq!(sink.received().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_for_days_is_disabled_and_one_that_failed_for_less_is_not() -> Result<()> {
    running!(app, api);
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    for (age, enabled, state) in [(119, true, "pending"), (121, false, "held")] {
        let sink = WebhookSink::answering(&[503; 20]).await?;
        let endpoint = endpoint(&api, &sink).await?;
        sqlx::query("update webhook_endpoints set failing_since = now() - make_interval(hours => $1) where url = $2")
            .bind(age)
            .bind(sink.url())
            .execute(&mut owner)
            .await?;
        let path = send_test(&api, &endpoint).await?;
        delivery_in(&api, &path, state, 1).await;
        let shown = api.get(&endpoint.path).await?;
        assert_eq!(shown.ok(200)["enabled"], enabled, "{age}");
        let reason = if enabled { Value::Null } else { "failing".into() };
        assert_eq!(shown.body["disabled_reason"], reason);
    }
    Ok(())
}

/// The log of attempts is bounded, the count is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_keeps_the_newest_attempts() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::answering(&[]).await?;
    let path = send_test(&api, &endpoint(&api, &sink).await?).await?;
    for attempt in 1..=22 {
        delivery_in(&api, &path, "delivered", attempt).await;
        if attempt < 22 {
            redeliver(&api, &path).await;
        }
    }
    let log = api.get(&path).await?.ok(200)["attempts"].as_array().cloned().unwrap_or_default();
    assert_eq!(log.len(), 20);
    assert!(log.windows(2).all(|pair| pair[0]["at"].as_str() <= pair[1]["at"].as_str()), "{log:?}");
    drop(app);
    Ok(())
}

/// Waits until the message can be redelivered: it counts as delivered slightly before its job is
/// final.
async fn redeliver(api: &ApiClient, path: &str) {
    eventually(PATIENCE, "the message is sent again", async || {
        let answer = api.act(&format!("{path}/redeliver")).await.ok()?;
        (answer.status == 202).then_some(())
    })
    .await;
}
