//! The group commit: more requests of A at once than can be committed in time.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use shared::clock::Clock;
use tests::installation::{ApiClient, Installation};

use super::unharmed;

/// A debug build works off a fraction of what a release build does in the same time.
const SCALE: usize = if cfg!(debug_assertions) { 5 } else { 1 };
const CONNECTIONS: usize = 48;

/// Due in a day: what they cost now is their commit.
fn job() -> Value {
    json!({ "kind": "noop", "args": {}, "run_at": Clock::system().now() + chrono::TimeDelta::days(1) })
}

/// Sends the same request on all connections, one after the other on each.
async fn send(tenant: &ApiClient, path: &str, requests: usize, body: &Value) -> Result<()> {
    let connection = async |_| {
        for _ in 0..requests {
            let status = tenant.post(path, body).await?.status.as_u16();
            ensure!(matches!(status, 202 | 429 | 503), "{status}");
        }
        Ok(())
    };
    try_join_all((0..CONNECTIONS).map(connection)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_at_once() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job(); 1_000] }));
    unharmed(&mut rota, async || send(&tenant, "jobs/batch", 5 / SCALE, &batch).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_requests_at_once() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, job) = (rota.tenant.clone(), job());
    unharmed(&mut rota, async || send(&tenant, "jobs", 500 / SCALE, &job).await).await
}
