//! Whether the cost of a job grows with the backlog: the drain rate at 1M waiting jobs over the
//! rate at 10k, and at 10k tenants over 10.

use anyhow::Result;
use uuid::Uuid;

use crate::{
    arguments::Size,
    backlog,
    bed::Bed,
    figure::{Measured, count},
    load::ARGS,
    scrape::rss,
};

const SLOTS: usize = 100;
const SHALLOW: usize = 10_000;
/// Each round measures a fifth of a second.
const SHALLOW_ROUNDS: usize = 9;
/// Jobs drained from a deep backlog, few enough for it to stay deep.
const SAMPLE: usize = 200_000;

/// Measures both ratios. Each drain is measured between its 10th and its 90th percentile, without
/// the worker's start and end.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let own = [bed.tenants[0].id];
    let mut shallow = Vec::new();
    for _ in 0..SHALLOW_ROUNDS {
        shallow.push(drain(bed, &own, SHALLOW, SHALLOW).await?.0);
    }
    shallow.sort_unstable_by(f64::total_cmp);
    let shallow = shallow[SHALLOW_ROUNDS / 2];
    let sample = SAMPLE.min(size.jobs / 5);
    let (deep, deep_rss) = drain(bed, &own, size.jobs, sample).await?;
    let (few, _) = drain(bed, &tenants(10), sample, sample).await?;
    let (many, _) = drain(bed, &tenants(10_000), sample, sample).await?;
    Ok(vec![
        Measured::new("drain at 10k waiting", shallow, "jobs/s"),
        Measured::new(format!("drain at {} waiting", size.jobs), deep, "jobs/s"),
        Measured::new(format!("drain at {} waiting over 10k", size.jobs), deep / shallow, "x").at_least(0.9),
        deep_rss,
        Measured::new("drain of 10 tenants", few, "jobs/s"),
        Measured::new("drain of 10,000 tenants", many, "jobs/s"),
        Measured::new("drain at 10k tenants over 10", many / few, "x").at_least(0.7),
    ])
}

/// Drains `sample` jobs of a backlog of `jobs`, and empties the ledger afterwards.
async fn drain(bed: &Bed, tenants: &[Uuid], jobs: usize, sample: usize) -> Result<(f64, Measured)> {
    let mut owner = bed.owner().await?;
    backlog::commit(&mut owner, tenants, jobs, "noop", ARGS).await?;
    backlog::rebuild_index(bed).await?;
    let worker = bed.worker(SLOTS).await?;
    while crate::scrape::completed(&worker).await? < count(sample) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let memory = rss(&format!("  worker peak RSS at {jobs} waiting"), &worker.process)?.at_most(150.0);
    worker.stop().await?;
    let rate = backlog::rate(&mut owner, sample / 10, sample / 10 * 9).await?;
    sqlx::query("truncate jobs").execute(&mut owner).await?;
    Ok((rate, memory))
}

/// The ledger does not check that a tenant exists, so these are only numbers.
fn tenants(count: u128) -> Vec<Uuid> {
    (1..=count).map(|number| Uuid::from_u128(number << 64)).collect()
}
