//! Dependencies: as many as A may have, in as few requests as possible.

use anyhow::{Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::unharmed;

const JOBS: usize = 150;
const REQUESTS: usize = 10;

/// A batch in which each job depends on the hundred before it.
fn batch() -> Value {
    let after =
        |number: usize| (number.saturating_sub(100)..number).map(|place| format!("#{place}")).collect::<Vec<_>>();
    let jobs: Vec<Value> = (0..JOBS).map(|number| json!({ "kind": "noop", "after": after(number) })).collect();
    json!({ "jobs": jobs })
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_jobs_that_wait_for_a_hundred_each() -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, batch) = (rota.tenant.clone(), batch());
    unharmed(&mut rota, async || {
        for answer in join_all((0..REQUESTS).map(|_| tenant.post("jobs/batch", &batch))).await {
            let status = answer?.status.as_u16();
            ensure!(matches!(status, 202 | 429 | 503), "{status}");
        }
        Ok(())
    })
    .await
}
