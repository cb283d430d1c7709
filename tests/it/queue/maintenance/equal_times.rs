//! Very many jobs with the same time: each page of them costs one page, not another pass over all
//! of them.

use std::time::Duration;

use anyhow::Result;
use chrono::DateTime;
use shared::{
    queue::{repair::expiry, repair::reconcile::Reconciler},
    tenancy::TenantId,
};
use tests::{sql::id_at, system::TestSystem};

use crate::queue::support::{Ledger, build_index, rows_read::counted};

const JOBS: u64 = 20_000;
const JOBS_READ: i64 = 20_000;

/// Inserts rows that share one time, a minute ago, in `column`; their ids ascend like those of the
/// producer.
async fn fill(ledger: &mut Ledger, tenant: TenantId, state: &str, column: &str) -> Result<()> {
    let fill = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts, {column})
         select {}, '{}', 'default', 'noop', '{{}}', '{state}', 2, 20, now() - interval '1 minute'
         from generate_series(1, {JOBS}) n",
        id_at("now() - interval '1 hour' + n * interval '1 ms'"),
        tenant.as_uuid()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    ledger.analyze().await
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_reads_each_job_once() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    fill(&mut ledger, tenant, "scheduled", "run_at").await?;
    let (promoted, read) = counted(&system, &mut ledger, async |db| {
        let reconciler = Reconciler::new(db, system.index.clone());
        Ok(reconciler.promote(DateTime::UNIX_EPOCH, Duration::from_secs(50)).await?.1)
    })
    .await?;
    assert_eq!(promoted, JOBS);
    assert!((JOBS_READ..2 * JOBS_READ).contains(&read), "{read} rows were read for {JOBS} jobs");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_reads_each_job_a_few_times() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    build_index(&system).await;
    let mut ledger = Ledger::open(&system).await?;
    fill(&mut ledger, tenant, "available", "expires_at").await?;
    let (discarded, read) =
        counted(&system, &mut ledger, async |db| Ok(expiry::sweep(&db, &system.index).await?)).await?;
    assert_eq!(discarded, JOBS);
    // Each row is read to be found, to be locked and to be updated.
    assert!((JOBS_READ..8 * JOBS_READ).contains(&read), "{read} rows were read for {JOBS} jobs");
    Ok(())
}
