//! How long the jobs of a killed worker are stalled. The lease is 2 s.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    arguments::Size,
    bed::Bed,
    client::{Client, post},
    figure::Measured,
    stamps::{Stamps, ms_between, now_ns},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// From the kill until the first of its jobs runs again, and until the last does.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let stamps = Stamps::listen().await?;
    // More slots than jobs: a worker keeps one slot in twenty free of a tenant's long jobs.
    let mut doomed = bed.worker(2 * size.jobs).await?;
    let mut client = Client::connect(bed.port).await?;
    let tokens = 0..u64::try_from(size.jobs)?;
    for token in tokens.clone() {
        let args = json!({ "ms": 600_000, "stamp": stamps.argument(token) });
        let body = json!({ "kind": "sleep", "args": args }).to_string();
        client.accepted(&post("/api/v1/jobs", &bed.tenants[0].api_key, &body)).await?;
        stamps.wait(token, PATIENCE, |runs| !runs.starts.is_empty()).await.context("a job did not start")?;
    }
    let _heir = bed.worker(2 * size.jobs).await?;
    let killed_ns = now_ns();
    doomed.process.kill9().await?;
    let mut waits = Vec::new();
    for token in tokens {
        let runs = stamps.wait(token, PATIENCE, |runs| runs.starts.len() > 1).await.context("a job was not rescued")?;
        waits.push(ms_between(killed_ns, runs.starts[1]) / 1_000.0);
    }
    waits.sort_unstable_by(f64::total_cmp);
    Ok(vec![
        Measured::new("recovery after kill -9, lease 2 s: first job", waits[0], "s"),
        Measured::new("recovery after kill -9, lease 2 s: last job", waits[waits.len() - 1], "s").at_most(5.0),
    ])
}
