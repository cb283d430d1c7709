//! Counts the job rows read by a part of the engine, from PostgreSQL's statistics, which are
//! flushed when its connection ends.

use anyhow::Result;
use shared::db::{PoolSettings, SystemDb};
use tests::system::TestSystem;

use super::Ledger;

/// Runs `work` over a connection of its own; returns its result and the number of job rows read.
pub async fn counted<T>(
    system: &TestSystem,
    ledger: &mut Ledger,
    work: impl AsyncFnOnce(SystemDb) -> Result<T>,
) -> Result<(T, i64)> {
    // Otherwise earlier reads of the ledger's own connection would be flushed during the
    // measurement.
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut ledger.0).await?;
    let before = ledger.rows_read().await?;
    let alone = PoolSettings { max_connections: 1, ..PoolSettings::default() };
    let given = work(SystemDb::open(&system.urls.system, "counted", alone)?).await?;
    ledger.ended("counted").await;
    Ok((given, ledger.rows_read().await? - before))
}
