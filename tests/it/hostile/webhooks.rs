//! Outbound connections: A's endpoints at a dead host and at a slow one, and more messages than
//! jobs.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    installation::{Installation, InstallationOptions},
    webhook_sink::{Reply, WebhookSink},
};
use tokio::net::TcpListener;

use super::unharmed;

async fn installation() -> Result<Installation> {
    let env = vec![("ROTA_WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8".to_owned())];
    Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await
}

/// Jobs whose ends produce a multiple of messages.
const MANY: usize = if cfg!(debug_assertions) { 100 } else { 2_000 };

async fn many_ends(rota: &mut Installation, urls: &[String], jobs: usize) -> Result<()> {
    let tenant = rota.tenant.clone();
    for url in urls {
        tenant.post("webhook-endpoints", &json!({ "url": url })).await?.expect(201)?;
    }
    let jobs: Vec<Value> = (0..jobs).map(|_| json!({ "kind": "noop" })).collect();
    unharmed(rota, async || {
        for jobs in jobs.chunks(1_000) {
            tenant.post("jobs/batch", &json!({ "jobs": jobs })).await?.expect(202)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_endpoints_at_a_dead_host() -> Result<()> {
    let mut rota = installation().await?;
    // A port that was free a moment ago: nothing listens on it.
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
    let urls: Vec<String> = (0..20).map(|at| format!("http://{dead}/{at}")).collect();
    let again = rota.tenant.post("webhook-endpoints", &json!({ "url": urls[0] })).await?;
    ensure!(again.status == 201, "{}", again.body);
    let again = rota.tenant.post("webhook-endpoints", &json!({ "url": urls[0] })).await?;
    ensure!(again.status == 409, "{}", again.body);
    many_ends(&mut rota, &urls[1..], 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_ten_seconds() -> Result<()> {
    let mut rota = installation().await?;
    let slow = Reply { status: 200, delay: Duration::from_secs(10), ..Reply::default() };
    let sink = WebhookSink::start(vec![slow; 10_000]).await?;
    many_ends(&mut rota, &[sink.url()], 100).await
}

/// Each end produces twenty messages.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_endpoints_that_answer_at_once() -> Result<()> {
    let mut rota = installation().await?;
    let sink = WebhookSink::start(Vec::new()).await?;
    let urls: Vec<String> = (0..20).map(|at| format!("{}?{at}", sink.url())).collect();
    many_ends(&mut rota, &urls, MANY).await
}
