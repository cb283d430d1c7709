//! The queue: a backlog of A's jobs.

use anyhow::Result;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::unharmed;

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
