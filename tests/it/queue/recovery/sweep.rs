//! The sweep finds rows that were never pushed to the index.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::queue::{enqueue::Producer, repair::reconcile::Reconciler};
use tests::system::TestSystem;
use uuid::Uuid;

use crate::queue::support::{LEASE, Ledger, indexed, queue, reaches, rows_read::counted};

const JOBS: u64 = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_committed_and_never_pushed_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    // Not before the index is complete: a rebuild would find the row, too.
    indexed(&system, 0).await;
    let epoch = system.index.status(&queue()).await?.epoch;
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    let mut transaction = system.tenants.begin(tenant).await?;
    Producer::enqueue_in(&mut transaction, &[job]).await?;
    transaction.commit().await?;
    reaches(&system, tenant, id, "completed").await;
    assert_eq!(system.index.status(&queue()).await?.epoch, epoch, "swept, not rebuilt");
    Ok(())
}

/// A plan made while the whole table waited is kept. With rows in the order of their ids, the
/// primary key looks cheap to that plan.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_reads_no_finished_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    ledger.fill(tenant, "available", JOBS).await?;
    ledger.analyze().await?;
    let mut owner = Ledger::open(&system).await?;
    let ((), read) = counted(&system, &mut ledger, async |db| {
        let reconciler = Reconciler::new(db, system.index.clone());
        let sweep = async || reconciler.sweep(&queue(), Uuid::nil(), Duration::ZERO).await.map(|(_, swept)| swept);
        assert_eq!(sweep().await?, JOBS);
        let end = "update jobs set state = 'completed', finalized_at = now() where ctid = any(array(select ctid from jobs offset 20))";
        sqlx::query(end).execute(&mut owner.0).await?;
        for _ in 0..10 {
            assert_eq!(sweep().await?, 20);
        }
        Ok(())
    })
    .await?;
    let jobs = i64::try_from(JOBS)?;
    // The first sweep reads all rows, and the update reads them twice; its statistics may be
    // flushed later.
    assert!(read < 5 * jobs, "{read} rows of {jobs} were read");
    Ok(())
}
