//! From a job's end to a message: which ends are published, to which endpoints, and that both are
//! committed together.

use anyhow::Result;
use serde_json::{Value, json};
use shared::queue::control;
use tests::{
    eventually::eventually,
    test_app::{ApiClient, TestApp},
    webhook_sink::{Received, WebhookSink},
};
use uuid::Uuid;

use super::{ENDPOINTS, LEASE, PATIENCE, endpoint, running};

const JOBS: &str = "/api/v1/jobs";

/// Workers learn of a new endpoint within two seconds: submits jobs until an end is published.
async fn heard(api: &ApiClient, sink: &WebhookSink) {
    eventually(PATIENCE, "the worker has loaded the endpoint", async || {
        submit(api, &json!({ "kind": "noop" })).await.ok()?;
        (!sink.received().is_empty()).then_some(())
    })
    .await;
}

async fn submit(api: &ApiClient, job: &Value) -> Result<Uuid> {
    let answer = api.post(JOBS, job).await?;
    answer.ok(202);
    Ok(answer.id())
}

/// The message about this job.
async fn message(sink: &WebhookSink, job: Uuid) -> Received {
    eventually(PATIENCE, "the job's end is published", async || {
        sink.received().into_iter().find(|one| one.json()["data"]["id"] == job.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_final_state_is_sent_with_a_signature() -> Result<()> {
    running!(app, api);
    let sink = WebhookSink::answering(&[]).await?;
    let endpoint = endpoint(&api, &sink).await?;
    heard(&api, &sink).await;
    let later = app.system.clock.now() + chrono::TimeDelta::hours(1);
    let done = submit(&api, &json!({ "kind": "noop" })).await?;
    let dead = submit(&api, &json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 })).await?;
    let unwanted = submit(&api, &json!({ "kind": "noop", "run_at": later })).await?;
    api.act(&format!("{JOBS}/{unwanted}/cancel")).await?.ok(200);
    for (job, event, state) in [
        (done, "job.completed", "completed"),
        (dead, "job.discarded", "discarded"),
        (unwanted, "job.cancelled", "cancelled"),
    ] {
        let message = message(&sink, job).await;
        message.verify(&endpoint.secret)?;
        let body = message.json();
        assert_eq!((&body["type"], &body["data"]["state"]), (&json!(event), &json!(state)), "{body}");
        assert_eq!((&body["data"]["attempt"], &body["data"]["queue"]), (&json!(1), &json!("default")));
        assert!(body["data"]["finalized_at"].is_string() && body["timestamp"] == body["data"]["finalized_at"]);
        let error = (state == "discarded").then_some(json!("failure 1 of 1, as requested"));
        assert_eq!(body["data"].get("error"), error.as_ref(), "{body}");
    }
    let shown = api.get(&format!("{}/deliveries?state=delivered&limit=200", endpoint.path)).await?;
    assert!(shown.ok(200)["items"].as_array().is_some_and(|items| items.len() >= 3), "{}", shown.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_receives_its_event_types_of_its_tenant() -> Result<()> {
    running!(app, api);
    let other = app.tenant("other").await?.api;
    let (all, picky) = (WebhookSink::answering(&[]).await?, WebhookSink::answering(&[]).await?);
    endpoint(&api, &all).await?;
    let choice = json!({ "url": picky.url(), "events": ["job.discarded"], "kinds": ["fail"] });
    api.post(ENDPOINTS, &choice).await?.ok(201);
    heard(&api, &all).await;
    let foreign = submit(&other, &json!({ "kind": "noop" })).await?;
    eventually(PATIENCE, "the other tenant's job is completed", async || {
        let job = other.get(&format!("{JOBS}/{foreign}")).await.ok()?;
        (job.body["state"] == "completed").then_some(())
    })
    .await;
    let failing = json!({ "kind": "fail", "args": { "times": 1 } });
    let mut hopeless = failing.clone();
    hopeless["max_attempts"] = 1.into();
    let (recovered, dead) = (submit(&api, &failing).await?, submit(&api, &hopeless).await?);
    for job in [recovered, dead] {
        message(&all, job).await;
    }
    message(&picky, dead).await;
    assert_eq!(picky.received().len(), 1);
    let told: Vec<Value> = all.received().iter().map(Received::json).collect();
    assert!(!told.iter().any(|one| one["data"]["id"] == foreign.to_string()), "another tenant's job");
    assert!(!told.iter().any(|one| one["data"]["kind"] == "deliver_webhook"), "no message about messages");
    Ok(())
}

/// Both or neither: a cancellation that is not committed publishes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_end_is_not_sent() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let sink = WebhookSink::answering(&[]).await?;
    let endpoint = endpoint(&tenant.api, &sink).await?;
    let later = app.system.clock.now() + chrono::TimeDelta::hours(1);
    let job = submit(&tenant.api, &json!({ "kind": "noop", "run_at": later })).await?;
    let deliveries = format!("{}/deliveries", endpoint.path);
    let mut transaction = app.system.tenants.begin(tenant.id).await?;
    control::cancel(&mut transaction, job).await?;
    drop(transaction);
    assert_eq!(tenant.api.get(&deliveries).await?.ok(200)["items"], json!([]));
    let mut transaction = app.system.tenants.begin(tenant.id).await?;
    control::cancel(&mut transaction, job).await?;
    transaction.commit().await?;
    let shown = tenant.api.get(&deliveries).await?.ok(200)["items"].clone();
    assert_eq!((&shown[0]["event_type"], &shown[0]["job_id"]), (&json!("job.cancelled"), &json!(job.to_string())));
    // The delivery's job was not pushed to the index: the sweep finds it.
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    message(&sink, job).await;
    Ok(())
}

/// A dependent submitted after its dependency ended unsuccessfully is cancelled, which is
/// published; the earlier end is not published again.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_sent_once_even_if_dependents_are_added_later() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let endpoint = endpoint(&api, &WebhookSink::answering(&[]).await?).await?;
    let failed = submit(&api, &json!({ "kind": "noop" })).await?;
    api.act(&format!("{JOBS}/{failed}/cancel")).await?.ok(200);
    let runs = json!({ "kind": "noop", "after": [failed], "on_dependency_failure": "run" });
    submit(&api, &runs).await?;
    let cancelled = submit(&api, &json!({ "kind": "noop", "after": [failed] })).await?;
    let shown = api.get(&format!("{}/deliveries", endpoint.path)).await?.ok(200)["items"].clone();
    let told: Vec<&Value> = shown.as_array().into_iter().flatten().map(|delivery| &delivery["job_id"]).collect();
    assert_eq!(told, [&json!(cancelled), &json!(failed)], "newest first");
    Ok(())
}
