//! The queue: a backlog of A's jobs.

use anyhow::Result;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::unharmed;

/// Of one job: a little less than it may be.
const PAD: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_short_jobs() -> Result<()> {
    let mut rota = Installation::start().await?;
    let jobs: Vec<Value> = (0..1_000).map(|_| json!({ "kind": "sleep", "args": { "ms": 5 } })).collect();
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": jobs }));
    unharmed(&mut rota, async || {
        for _ in 0..3 {
            tenant.post("jobs/batch", &batch).await?.expect(202)?;
        }
        Ok(())
    })
    .await
}

/// Whoever reads rows of A beside B's reads as many bytes as A likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_args() -> Result<()> {
    let mut rota = Installation::start().await?;
    // What the ledger cannot compress.
    let pad: String = (0..PAD).map(|_| char::from(rand::random_range(b'A'..=b'z'))).filter(|c| *c != '\\').collect();
    let job = json!({ "kind": "noop", "args": { "pad": pad } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; 15] }));
    unharmed(&mut rota, async || {
        for _ in 0..100 {
            tenant.post("jobs/batch", &batch).await?.expect(202)?;
        }
        Ok(())
    })
    .await
}
