//! The wait of a job in an idle system: one job every 10 ms, open loop, from just before the HTTP
//! request is written until the handler has started, including the commit.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    arguments::Size,
    bed::Bed,
    client::post,
    figure::Measured,
    load::paced,
    stamps::{Stamps, ms_between},
};

const EVERY: Duration = Duration::from_millis(10);
const SLOTS: usize = 20;
/// Requests that open connections and fill caches.
const WARM_UP: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the figure.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let _worker = bed.worker(SLOTS).await?;
    let stamps = Stamps::listen().await?;
    let api_key = bed.tenants[0].api_key.clone();
    probe(bed.port, &api_key, &stamps, EVERY, 0..WARM_UP).await?;
    let probes = size.seconds * 1_000 / 10;
    let mut waits = probe(bed.port, &api_key, &stamps, EVERY, WARM_UP..WARM_UP + probes).await?;
    Ok(vec![
        Measured::percentile("pick-up, idle: request to handler start, p50", &mut waits, 50).at_most(2.0),
        Measured::percentile("pick-up, idle: request to handler start, p99", &mut waits, 99).at_most(5.0),
    ])
}

/// Sends a job for each token and returns how many milliseconds each waited. All must have run.
pub async fn probe(
    port: u16,
    api_key: &str,
    stamps: &Stamps,
    every: Duration,
    tokens: std::ops::Range<u64>,
) -> Result<Vec<f64>> {
    let request = |token| {
        let body = json!({ "kind": "noop", "args": { "stamp": stamps.argument(token) } }).to_string();
        post("/api/v1/jobs", api_key, &body)
    };
    let sent = paced(port, every, tokens.clone().map(request).collect()).await?;
    let mut waits = Vec::new();
    for (token, sent_ns) in tokens.zip(sent.sent_ns) {
        let Some(sent_ns) = sent_ns else { anyhow::bail!("job {token} was refused") };
        let runs = stamps.wait(token, PATIENCE, |runs| !runs.starts.is_empty()).await.unwrap_or_default();
        ensure!(runs.starts.len() == 1, "job {token} ran {} times", runs.starts.len());
        waits.push(ms_between(sent_ns, runs.starts[0]));
    }
    Ok(waits)
}
