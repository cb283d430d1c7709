//! The effect on a quiet tenant of floods that take next to no worker time: its p99 pick-up during
//! each flood, compared with the undisturbed one.
//!
//! Invariant: a flood is committed while the probes are taken, and has ended before the next one
//! begins.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::clock::Clock;

use super::pickup::probe;
use crate::{
    arguments::Size,
    backlog,
    bed::Bed,
    client::{Client, post},
    figure::Measured,
    load::batches,
    stamps::Stamps,
};

const EVERY: Duration = Duration::from_millis(20);
const SLOTS: usize = 20;
const WARM_UP: u64 = 50;
/// During a flood a probe may wait twice the undisturbed time plus this.
const TOLERANCE_MS: f64 = 20.0;
/// The delay until expiring jobs become due, which must exceed the duration of their commit.
const LATER: Duration = Duration::from_secs(5);

/// The jobs of a flood.
struct Flood {
    name: &'static str,
    job: serde_json::Value,
    /// Cancelled by filter during the measurement.
    is_cancelled: bool,
}

fn floods() -> [Flood; 5] {
    let flood = |name, job| Flood { name, job, is_cancelled: false };
    let run_at = Clock::system().now() + LATER;
    let expiring =
        json!({ "kind": "noop", "args": {}, "run_at": run_at, "expires_at": run_at + Duration::from_millis(1) });
    [
        flood("do nothing", json!({ "kind": "noop", "args": {} })),
        flood("fail at once", json!({ "kind": "fail", "args": { "times": 100 }, "max_attempts": 5 })),
        flood("panic", json!({ "kind": "panic", "args": {}, "max_attempts": 5 })),
        flood("expire", expiring),
        Flood {
            is_cancelled: true,
            ..flood("are cancelled by filter", json!({ "kind": "sleep", "args": { "ms": 50 } }))
        },
    ]
}

/// Measures the figure.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let stamps = Stamps::listen().await?;
    let (flooder, quiet) = (&bed.tenants[0].api_key, &bed.tenants[1].api_key);
    let probes = size.seconds * 1_000 / 20;
    let _worker = bed.worker(SLOTS).await?;
    probe(bed.port, quiet, &stamps, EVERY, 0..WARM_UP).await?;
    let mut alone = probe(bed.port, quiet, &stamps, EVERY, 1_000..1_000 + probes).await?;
    let alone = Measured::percentile("quiet tenant alone, p99", &mut alone, 99);
    let bar = 2.0 * alone.value() + TOLERANCE_MS;
    let (mut figures, mut owner) = (vec![alone], bed.owner().await?);
    let mut ended = usize::try_from(WARM_UP + probes)?;
    for number in 0..floods().len() {
        // Created when the flood begins, since a flood may contain times.
        let flood = &floods()[number];
        let (first, name) = (100_000 * (number as u64 + 1), flood.name);
        let (job, jobs) = (flood.job.to_string(), size.jobs);
        let flooding = async {
            batches(bed.port, flooder, jobs, &[job]).await?;
            if flood.is_cancelled {
                let body = r#"{"filter":{"state":"available","kind":"sleep"},"limit":10000}"#;
                let (mut client, cancel) =
                    (Client::connect(bed.port).await?, post("/api/v1/jobs/cancel", flooder, body));
                for _ in 0..=jobs / 10_000 {
                    client.answered(&cancel, "200").await?;
                }
            }
            anyhow::Ok(())
        };
        let (flooded, beside) = tokio::join!(flooding, probe(bed.port, quiet, &stamps, EVERY, first..first + probes));
        flooded?;
        figures.push(Measured::percentile(format!("  beside {jobs} jobs that {name}"), &mut beside?, 99).at_most(bar));
        ended += jobs + usize::try_from(probes)?;
        backlog::finished(&mut owner, ended).await?;
    }
    Ok(figures)
}
