//! The queue: a backlog of A's jobs.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::{never_held_off, unharmed};

/// Longer than the tolerance during an attack.
const LONG: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 4 });

/// The run time of jobs that start together and therefore end together.
const WAVE: Duration = Duration::from_secs(4);

/// The padding of one job, slightly below the limit on args.
const PAD: usize = 60_000;

/// Enqueues this many batches of copies of a job, one after the other, while B works.
async fn backlog(batches: usize, jobs: usize, job: Value) -> Result<()> {
    let mut rota = Installation::start().await?;
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; jobs] }));
    unharmed(&mut rota, async || {
        for _ in 0..batches {
            tenant.post("jobs/batch", &batch).await?.expect(202)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_short_jobs() -> Result<()> {
    backlog(3, 1_000, json!({ "kind": "sleep", "args": { "ms": 5 } })).await
}

/// A query that reads A's rows together with B's reads as many bytes as A chooses.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_args() -> Result<()> {
    // Random bytes, which the ledger cannot compress.
    let pad: String = (0..PAD).map(|_| char::from(rand::random_range(b'A'..=b'z'))).filter(|c| *c != '\\').collect();
    backlog(100, 15, json!({ "kind": "noop", "args": { "pad": pad } })).await
}

/// More jobs than slots.
#[tokio::test(flavor = "multi_thread")]
async fn long_jobs_in_all_slots() -> Result<()> {
    let mut rota = Installation::start().await?;
    let job = json!({ "kind": "sleep", "args": { "ms": 60_000 } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; 100] }));
    unharmed(&mut rota, async || {
        tenant.post("jobs/batch", &batch).await?.expect(202)?;
        // The duration of the attack.
        tokio::time::sleep(LONG).await;
        let cancel = json!({ "filter": { "state": "available", "kind": "sleep" } });
        tenant.post("jobs/cancel", &cancel).await?.expect(200)?;
        Ok(())
    })
    .await
}

/// The first wave shows how long the others take. B's next job always finds a slot, because the
/// jobs of other tenants leave at least one free.
#[tokio::test(flavor = "multi_thread")]
async fn long_jobs_in_waves() -> Result<()> {
    let mut rota = Installation::start().await?;
    let job = json!({ "kind": "sleep", "args": { "ms": WAVE.as_millis() } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; 150] }));
    let attack = async || tenant.post("jobs/batch", &batch).await?.expect(202).map(drop);
    never_held_off(&mut rota, attack, 5 * WAVE, WAVE / 4).await
}
