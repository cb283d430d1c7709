//! The queue: a backlog of A's jobs.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::{never_held_off, unharmed};

/// Longer than what is allowed beside an attack.
const LONG: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 4 });

/// How long a job of a backlog takes whose jobs end together.
const WAVE: Duration = Duration::from_secs(4);

/// Of one job: a little less than it may be.
const PAD: usize = 60_000;

/// Enqueues so many batches of copies of a job, one after the other, while B works.
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

/// Whoever reads rows of A beside B's reads as many bytes as A likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_args() -> Result<()> {
    // What the ledger cannot compress.
    let pad: String = (0..PAD).map(|_| char::from(rand::random_range(b'A'..=b'z'))).filter(|c| *c != '\\').collect();
    backlog(100, 15, json!({ "kind": "noop", "args": { "pad": pad } })).await
}

/// As many as there are slots, and more.
#[tokio::test(flavor = "multi_thread")]
async fn long_jobs_in_all_slots() -> Result<()> {
    let mut rota = Installation::start().await?;
    let job = json!({ "kind": "sleep", "args": { "ms": 60_000 } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; 100] }));
    unharmed(&mut rota, async || {
        tenant.post("jobs/batch", &batch).await?.expect(202)?;
        tokio::time::sleep(LONG).await;
        let cancel = json!({ "filter": { "state": "available", "kind": "sleep" } });
        tenant.post("jobs/cancel", &cancel).await?.expect(200)?;
        Ok(())
    })
    .await
}

/// The first wave says how long the others take. B's first job finds a slot each time: others' jobs have at least one less than there are.
#[tokio::test(flavor = "multi_thread")]
async fn long_jobs_in_waves() -> Result<()> {
    let mut rota = Installation::start().await?;
    let job = json!({ "kind": "sleep", "args": { "ms": WAVE.as_millis() } });
    let (tenant, batch) = (rota.tenant.clone(), json!({ "jobs": vec![job; 150] }));
    let attack = async || tenant.post("jobs/batch", &batch).await?.expect(202).map(drop);
    never_held_off(&mut rota, attack, 5 * WAVE, WAVE / 4).await
}
