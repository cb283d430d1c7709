//! Locks in the ledger: A's requests under idempotency keys that A's long transactions hold.

use anyhow::{Result, ensure};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use tests::installation::{ApiClient, Installation, leads_csv};

use super::unharmed;

/// Campaigns created at the same time.
const CAMPAIGNS: usize = 6;
const LEADS: usize = 8_000;
/// Requests under each of their keys.
const REQUESTS: usize = 20;

/// Accepts only a status that a client can act on, received in time.
fn ensure_no_fault(status: u16) -> Result<()> {
    ensure!(matches!(status, 201 | 202 | 409 | 422 | 429), "{status}");
    Ok(())
}

async fn jobs_under(tenant: &ApiClient, key: &str) -> Result<()> {
    let job = json!({ "kind": "noop" });
    for _ in 0..REQUESTS {
        ensure_no_fault(tenant.post_once("jobs", key, &job).await?.status.as_u16())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_under_the_keys_of_campaigns_that_are_being_created() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, round) = (rota.tenant.clone(), AtomicU32::new(0));
    let csv = leads_csv("lead", 0..LEADS).0;
    let campaign: Value = json!({
        "name": "Spring", "subject": "Hello", "text": "Dear all", "leads_csv": csv,
        "from": { "email": "news@rota.example", "name": "Rota" },
    });
    unharmed(&mut rota, async || {
        let round = round.fetch_add(1, Ordering::Relaxed);
        let keys: Vec<String> = (0..CAMPAIGNS).map(|number| format!("{round} {number}")).collect();
        let campaigns = join_all(keys.iter().map(|key| tenant.post_once("campaigns", key, &campaign)));
        let jobs = try_join_all(keys.iter().map(|key| jobs_under(&tenant, key)));
        let (campaigns, jobs) = tokio::join!(campaigns, jobs);
        jobs?;
        campaigns.into_iter().try_for_each(|answer| ensure_no_fault(answer?.status.as_u16()))
    })
    .await
}
