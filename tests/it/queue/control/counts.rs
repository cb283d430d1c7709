//! Counting the jobs that are not due, for all queues at once.

use std::collections::HashMap;

use anyhow::Result;
use shared::queue::observe::inspect::{NotDue, count_not_due};
use tests::{sql::id_at, system::TestSystem};

use crate::queue::support::{Ledger, rows_read::counted};

/// Rows in these states must not be counted.
const OTHERS: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_counts_jobs_not_due_and_reads_no_others() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let columns = "id, tenant_id, queue, kind, args, state, priority, max_attempts, run_at";
    let (id, tenant) = (id_at("now()"), tenant.as_uuid());
    let rows = format!("{id}, '{tenant}', queue, 'noop', '{{}}', state::job_state, 2, 20, now()");
    let fill = format!(
        "insert into jobs ({columns}) select {rows} - interval '1 minute'
           from (values ('default'), ('email')) q (queue), (values ('available'), ('scheduled'), ('retryable')) s (state),
                generate_series(1, {OTHERS} / 6);
         insert into jobs ({columns}) select {rows} + interval '1 hour'
           from (values ('default', 'scheduled', 30), ('default', 'retryable', 20), ('email', 'scheduled', 10)) t (queue, state, jobs),
                generate_series(1, jobs)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut ledger.0).await?;
    ledger.analyze().await?;
    let (counts, read) = counted(&system, &mut ledger, async |db| Ok(count_not_due(&db).await?)).await?;
    let expected = [
        ("default".parse()?, NotDue { scheduled: 30, retryable: 20 }),
        ("email".parse()?, NotDue { scheduled: 10, retryable: 0 }),
    ];
    assert_eq!(counts, HashMap::from(expected));
    // 0 if no old transaction prevents the pages from being all-visible, otherwise 60.
    assert!(read <= 60, "{read} rows were read");
    Ok(())
}
