//! Failing endpoints: one per URL, probed by one message at a time, without effect on other
//! tenants.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use shared::queue::limits::Limiter;
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{Answer, TestApp},
    webhook_sink::{Reply, WebhookSink},
};

use super::{ENDPOINTS, LEASE, PATIENCE, endpoint, running, send_test};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_one_endpoint_for_each_url_however_it_is_spelt() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let url = |url: &str| json!({ "url": url });
    let first = api.post(ENDPOINTS, &url("https://example.com/hook")).await?.id();
    for same in [
        "https://example.com/hook",
        "https://EXAMPLE.com:443/hook",
        "https://example.com./x/../hook",
        "https://example.com/%68ook?",
    ] {
        let refused = api.post(ENDPOINTS, &url(same)).await?;
        assert_eq!(refused.problem(409, "conflict")["endpoint_id"], first.to_string(), "{same}");
    }
    let second = api.post(ENDPOINTS, &url("https://example.com/other")).await?.id();
    let patch = async |url: &str| {
        let path = format!("{ENDPOINTS}/{second}");
        Answer::to(api.request(&axum::http::Method::PATCH, &path).json(&json!({ "url": url }))).await
    };
    patch("https://Example.com/hook").await?.problem(409, "conflict");
    patch("https://example.com/other").await?.ok(200);
    patch("https://example.com/third").await?.ok(200);
    api.post(ENDPOINTS, &url("https://example.com/other")).await?.ok(201);
    other.post(ENDPOINTS, &url("https://example.com/hook")).await?.ok(201);
    let race = url("https://example.com/race");
    let raced = futures::future::join_all((0..10).map(|_| api.post(ENDPOINTS, &race))).await;
    let made = raced.into_iter().filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 201)).count();
    assert_eq!(made, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_endpoint_is_probed_with_one_message_at_a_time() -> Result<()> {
    running!(app, api);
    let fails = Reply { status: 500, ..Reply::default() };
    let sink = WebhookSink::start(vec![fails; 1_000]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    // Moves the next probe far into the future, so that the test decides when it happens.
    for _ in 0..5 {
        send_test(&api, &endpoint).await?;
    }
    sink.wait_for(5, PATIENCE).await;
    eventually(PATIENCE, "the breaker is open", async || {
        let count: i32 =
            sqlx::query_scalar("select max(failure_count) from webhook_endpoints").fetch_one(&mut owner).await.ok()?;
        (count >= 5).then_some(())
    })
    .await;
    sqlx::query("update webhook_endpoints set probe_at = now() + interval '1 hour'").execute(&mut owner).await?;
    let tried = sink.received().len();
    let mut paths = Vec::new();
    for _ in 0..30 {
        paths.push(send_test(&api, &endpoint).await?);
    }
    let jobs: Vec<String> = eventually(PATIENCE, "all messages wait", async || {
        let page = api.get("/api/v1/jobs?kind=deliver_webhook&state=scheduled&limit=200").await.ok()?;
        let items = page.body["items"].as_array()?.clone();
        (items.len() >= 30).then(|| items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect())
    })
    .await;
    assert_eq!(sink.received().len(), tried, "nothing was sent while the breaker is open");
    for path in &paths {
        let delivery = api.get(path).await?;
        assert_eq!((&delivery.ok(200)["state"], &delivery.body["attempt_count"]), (&json!("pending"), &json!(0)));
    }
    let explained = api.get(&format!("/api/v1/jobs/{}/explain", jobs[0])).await?;
    assert_eq!(explained.ok(200)["reason"], "endpoint_failing", "{}", explained.text);

    // The probe is due: of all waiting messages, one is sent.
    sqlx::query("update webhook_endpoints set probe_at = now()").execute(&mut owner).await?;
    let path = send_test(&api, &endpoint).await?;
    super::delivery_in(&api, &path, "pending", 1).await;
    assert_eq!(sink.received().len(), tried + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_closes_the_breaker() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::answering(&[500; 5]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    let mut paths = Vec::new();
    for _ in 0..5 {
        paths.push(send_test(&api, &endpoint).await?);
    }
    sink.wait_for(5, PATIENCE).await;
    // The probe after 10 s succeeds, and the other messages follow.
    for path in &paths {
        eventually(Duration::from_mins(2), "the message is delivered", async || {
            let delivery = api.get(path).await.ok()?.body;
            (delivery["state"] == "delivered").then_some(())
        })
        .await;
    }
    let shown = api.get(&endpoint.path).await?;
    assert!(shown.ok(200)["failing_since"].is_null() && shown.body["enabled"] == true, "{}", shown.text);
    drop(app);
    Ok(())
}

/// A slow receiver takes only a part of the slots, across all endpoints of its tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_five_messages_in_flight() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let slow = Reply { status: 200, delay: Duration::from_secs(14), ..Reply::default() };
    let sink = WebhookSink::start(vec![slow; 1_000]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    for _ in 0..20 {
        send_test(&api, &endpoint).await?;
    }
    let _scheduler = app.system.scheduler();
    let (limiter, queue) = (Limiter::new(app.system.system.clone(), app.system.index.clone()), "webhooks".parse()?);
    eventually(PATIENCE, "the index has the cap", async || {
        (limiter.reconcile(std::slice::from_ref(&queue)).await.ok()? == 0).then_some(())
    })
    .await;
    let _worker = app.system.worker(20, LEASE);
    sink.wait_for(5, PATIENCE).await;
    // Time for a sixth message, which must not be sent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sink.received().len(), 5, "the sixth message waits for one of the five");
    let waits: Vec<Value> =
        api.get("/api/v1/jobs?kind=deliver_webhook&state=available&limit=200").await?.ok(200)["items"]
            .as_array()
            .cloned()
            .unwrap_or_default();
    assert!(waits.len() >= 15, "{}", waits.len());
    Ok(())
}
