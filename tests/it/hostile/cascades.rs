//! Ends of jobs with many dependents.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::installation::{ApiClient, Installation};

use super::unharmed;

const CHAIN: usize = 3_000;
const BATCH: usize = 500;

/// A chain of jobs, each of which depends on the previous one. Returns the first.
async fn chain(tenant: &ApiClient, head: Value) -> Result<String> {
    let (mut first, mut last) = (None, None);
    for _ in 0..CHAIN / BATCH {
        let job = |number: usize| match (&last, number) {
            (None, 0) => head.clone(),
            (Some(last), 0) => json!({ "kind": "noop", "after": [last] }),
            (_, number) => json!({ "kind": "noop", "after": [format!("#{}", number - 1)] }),
        };
        let jobs: Vec<Value> = (0..BATCH).map(job).collect();
        let answer = tenant.post("jobs/batch", &json!({ "jobs": jobs })).await?.expect(202)?;
        let id = |place: usize| answer["results"][place]["id"].as_str().map(str::to_owned);
        first = first.or(id(0));
        last = id(BATCH - 1);
    }
    first.context("a batch has results")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_chain_is_cancelled_by_its_head() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    unharmed(&mut rota, async || {
        let head = chain(&tenant, json!({ "kind": "sleep", "args": { "ms": 60_000 } })).await?;
        tenant.post(&format!("jobs/{head}/cancel"), &Value::Null).await?.expect(200)?;
        // Adds dependents to the head while it is being cancelled.
        for _ in 0..20 {
            tenant.post("jobs", &json!({ "kind": "noop", "after": [head] })).await?.expect(202)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_long_chains_fail() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    unharmed(&mut rota, async || {
        for _ in 0..3 {
            chain(&tenant, json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1 })).await?;
        }
        Ok(())
    })
    .await
}
