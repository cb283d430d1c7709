//! Webhooks from a job's end to a receiver, over real connections.

mod delivery;
mod endpoints;
mod failing;
mod outage;
mod raising;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::{
    eventually::eventually,
    test_app::{Answer, ApiClient},
    webhook_sink::WebhookSink,
};

/// For anything that must happen; only a failing test takes this long.
const PATIENCE: Duration = Duration::from_secs(40);
const LEASE: Duration = Duration::from_secs(10);
const ENDPOINTS: &str = "/api/v1/webhook-endpoints";

/// An endpoint with its path and secret.
struct Endpoint {
    path: String,
    secret: String,
}

/// Creates an endpoint for the sink.
async fn endpoint(api: &ApiClient, sink: &WebhookSink) -> Result<Endpoint> {
    let answer = api.post(ENDPOINTS, &json!({ "url": sink.url() })).await?;
    let secret = answer.ok(201)["secret"].as_str().unwrap_or_default().to_owned();
    Ok(Endpoint { path: format!("{ENDPOINTS}/{}", answer.id()), secret })
}

/// Sends a test message and returns the path of its delivery.
async fn send_test(api: &ApiClient, endpoint: &Endpoint) -> Result<String> {
    let answer: Answer = api.act(&format!("{}/test", endpoint.path)).await?;
    answer.ok(202);
    Ok(format!("{}/deliveries/{}", endpoint.path, answer.id()))
}

/// Waits until a delivery is in this state after this many attempts, and returns it.
async fn delivery_in(api: &ApiClient, path: &str, state: &str, attempts: usize) -> Value {
    eventually(PATIENCE, &format!("the delivery is {state} after {attempts} attempts"), async || {
        let answer = api.get(path).await.ok()?;
        (answer.status == 200 && answer.body["state"] == state && answer.body["attempt_count"] == attempts)
            .then_some(answer.body)
    })
    .await
}

/// A tenant's client of an API with a scheduler and a worker.
macro_rules! running {
    ($app:ident, $api:ident) => {
        let $app = TestApp::start().await?;
        let $api = $app.tenant("acme").await?.api;
        let (_scheduler, _worker) = ($app.system.scheduler(), $app.system.worker(4, LEASE));
    };
}
use running;
