//! Rows that the index was never told of are found.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::{
    db::{PoolSettings, SystemDb},
    queue::{producer::Producer, reconcile::Reconciler},
};
use tests::{eventually::eventually, system::TestSystem};
use uuid::Uuid;

use super::support::{LEASE, Ledger, PATIENCE, indexed, queue, reaches};

const JOBS: u64 = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_committed_and_never_pushed_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    // Not before the index is whole: a rebuild would find the row too.
    indexed(&system, 0).await;
    let epoch = system.index.status(&super::support::queue()).await?.epoch;
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    let mut transaction = system.tenants.begin(tenant).await?;
    Producer::enqueue_in(&mut transaction, &[job]).await?;
    transaction.commit().await?;
    reaches(&system, tenant, id, "completed").await;
    assert_eq!(system.index.status(&super::support::queue()).await?.epoch, epoch, "it was swept, not rebuilt");
    Ok(())
}

/// A plan that was made while all of the table waited is kept, and rows lie in the order of their ids: the primary key looked cheap.
/// Rows are counted as PostgreSQL counts them, when the one connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_reads_no_finished_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let fill = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts)
         select overlay(gen_random_uuid()::text placing left(uuid_at(clock_timestamp() - interval '1 hour')::text, 13) from 1 for 13)::uuid, '{}',
                'default', 'noop', '{{}}', 'available', 2, 20
         from generate_series(1, {JOBS})",
        tenant.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    sqlx::query("vacuum analyze jobs").execute(&mut ledger.0).await?;
    let alone = PoolSettings { max_connections: 1, ..PoolSettings::default() };
    let reconciler = Reconciler::new(SystemDb::open(&system.urls.system, "sweeping", alone)?, system.index.clone());
    let sweep = async || reconciler.sweep(&queue(), Uuid::nil(), Duration::ZERO).await.map(|(_, swept)| swept);
    assert_eq!(sweep().await?, JOBS);

    let before = rows_read(&mut ledger).await?;
    let end = "update jobs set state = 'completed', finalized_at = now() where ctid = any(array(select ctid from jobs offset 20))";
    sqlx::query(end).execute(&mut ledger.0).await?;
    for _ in 0..10 {
        assert_eq!(sweep().await?, 20);
    }
    drop(reconciler);
    eventually(PATIENCE, "its connection has ended", async || {
        let left = sqlx::query_scalar("select count(*) from pg_stat_activity where application_name = 'sweeping'");
        (left.fetch_one(&mut ledger.0).await.ok() == Some(0_i64)).then_some(())
    })
    .await;
    let (read, jobs) = (rows_read(&mut ledger).await? - before, i64::try_from(JOBS)?);
    // The first sweep may be told late, and the update reads twice.
    assert!(read < 5 * jobs, "{read} rows of {jobs} were read");
    Ok(())
}

async fn rows_read(ledger: &mut Ledger) -> Result<i64> {
    let read = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::int8 from pg_stat_user_tables where relname like 'jobs\\_2%'";
    Ok(sqlx::query_scalar(read).fetch_one(&mut ledger.0).await?)
}
