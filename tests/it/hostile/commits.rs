//! The group commit: more concurrent requests of A than can be validated and committed in time.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use shared::clock::Clock;
use tests::installation::{ApiClient, Installation};

use super::unharmed;

/// A debug build processes only a fraction of a release build's load in the same time.
const SCALE: usize = if cfg!(debug_assertions) { 5 } else { 1 };
const CONNECTIONS: usize = 48;
/// Jobs per large request.
const JOBS: usize = 1_000;

/// Due in a day, so its only cost now is its commit.
fn job() -> Value {
    json!({ "kind": "noop", "args": {}, "run_at": Clock::system().now() + chrono::TimeDelta::days(1) })
}

/// Sends the same request on all connections, sequentially on each. `expected` is the status of
/// requests that get through, which must be the majority: requests rejected early do no harm.
async fn send(tenant: &ApiClient, path: &str, requests: usize, body: &Value, expected: u16) -> Result<()> {
    let (body, requests) = (body.to_string(), requests / SCALE);
    let connection = async |_| {
        let mut got_through = 0;
        for _ in 0..requests {
            let status = tenant.post_status(path, &body).await?.as_u16();
            ensure!(status == expected || matches!(status, 429 | 503), "{status}");
            got_through += usize::from(status == expected);
        }
        Ok(got_through)
    };
    let got_through: usize = try_join_all((0..CONNECTIONS).map(connection)).await?.into_iter().sum();
    ensure!(2 * got_through > CONNECTIONS * requests, "{got_through} of {} got through", CONNECTIONS * requests);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_at_once() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job(); JOBS] }));
    unharmed(&mut rota, async || send(&tenant, "jobs/batch", 5, &batch, 202).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn single_requests_at_once() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, job) = (rota.tenant.clone(), job());
    unharmed(&mut rota, async || send(&tenant, "jobs", 500, &job, 202).await).await
}

/// A refused job takes longer to validate than a valid one, and its refusal is part of the
/// response.
#[tokio::test(flavor = "multi_thread")]
async fn large_requests_that_are_refused() -> Result<()> {
    let mut rota = Installation::start().await?;
    let refused = json!({ "kind": "sleep", "args": { "ms": "long", "stamp": 1, "else": null } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![refused; JOBS] }));
    unharmed(&mut rota, async || send(&tenant, "jobs/batch", 20, &batch, 422).await).await
}
