//! The effect of a flood on a quiet tenant: its p99 pick-up during a large backlog, over the
//! undisturbed one.
//!
//! By default half of the flood still waits after the last probe, and the p99 is determined by the
//! six slowest of 625 probes.

use std::time::Duration;

use anyhow::{Result, ensure};
use shared::queue::QueueName;
use tests::eventually::eventually;

use super::pickup::probe;
use crate::{
    arguments::Size,
    backlog,
    bed::{Bed, queue},
    figure::Measured,
    load::batches,
    stamps::Stamps,
};

const EVERY: Duration = Duration::from_millis(40);
const SLOTS: usize = 20;
const WARM_UP: u64 = 50;
const PATIENCE: Duration = Duration::from_mins(1);

/// A flood of one kind.
pub async fn one_kind(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let items = [r#"{"kind":"sleep","args":{"ms":5}}"#.to_owned()];
    take(bed, size, "beside a flood", vec![queue()], &items).await
}

/// A flood that uses every way to look like many: 1,000 kinds, 4 priorities, 11 queues, one of them
/// the queue of the quiet tenant.
pub async fn split(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let kind = |at: usize| if at.is_multiple_of(11) { "sleep".to_owned() } else { format!("sleep_{}", at % 1_000) };
    let sleep = |at| format!(r#"{{"kind":"{}","args":{{"ms":5}},"priority":{}}}"#, kind(at), 1 + at % 4);
    let items: Vec<String> = (0..11_000).map(sleep).collect();
    let own = (0..10).map(|at| format!("test_{at}").parse()).collect::<Result<Vec<_>, _>>()?;
    let queues = [vec![queue()], own].concat();
    take(bed, size, "beside a flood of 1,000 kinds, 4 priorities, 11 queues", queues, &items).await
}

async fn take(
    bed: &mut Bed,
    size: Size,
    beside: &str,
    queues: Vec<QueueName>,
    items: &[String],
) -> Result<Vec<Measured>> {
    let (stamps, index) = (Stamps::listen().await?, bed.index()?);
    let (flooder, quiet) = (&bed.tenants[0].api_key, &bed.tenants[1].api_key);
    let probes = size.seconds * 1_000 / 40;
    let worker = bed.worker(SLOTS).await?;
    probe(bed.port, quiet, &stamps, EVERY, 0..WARM_UP).await?;
    let mut alone = probe(bed.port, quiet, &stamps, EVERY, 1_000..1_000 + probes).await?;
    worker.stop().await?;

    batches(bed.port, flooder, size.jobs, items).await?;
    backlog::indexed(bed, &queues, size.jobs).await?;
    // Autovacuum and disk work after a bulk load is not part of the effect of one tenant on
    // another.
    let mut owner = bed.owner().await?;
    sqlx::query("vacuum analyze jobs").execute(&mut owner).await?;
    sqlx::query("checkpoint").execute(&mut owner).await?;
    let _worker = bed.worker(SLOTS).await?;
    eventually(PATIENCE, "every slot is busy", async || {
        let mut leased = 0;
        for queue in &queues {
            leased += index.status(queue).await.ok()?.leased;
        }
        (leased >= SLOTS as u64).then_some(())
    })
    .await;
    probe(bed.port, quiet, &stamps, EVERY, 100_000..100_000 + WARM_UP).await?;
    let mut flooded = probe(bed.port, quiet, &stamps, EVERY, 200_000..200_000 + probes).await?;
    let left = backlog::waiting(&index, &queues).await?;
    ensure!(left > 0, "the backlog ran dry before the measurement ended: use more --jobs or fewer --seconds");

    let alone_p99 = Measured::percentile("quiet tenant alone, p99", &mut alone, 99);
    let flooded_p99 = Measured::percentile(format!("quiet tenant {beside}, p99"), &mut flooded, 99).at_most(30.0);
    let ratio = flooded_p99.value() / alone_p99.value();
    Ok(vec![
        Measured::percentile("quiet tenant alone, p50", &mut alone, 50),
        alone_p99,
        Measured::percentile(format!("quiet tenant {beside}, p50"), &mut flooded, 50),
        flooded_p99,
        Measured::new(format!("quiet tenant {beside}, p99 over alone"), ratio, "x").at_most(2.0),
    ])
}
