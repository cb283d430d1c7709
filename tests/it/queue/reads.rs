//! Counting the rows of jobs that one of the engine's parts reads, as PostgreSQL counts them: when its connection ends.

use anyhow::Result;
use shared::db::{PoolSettings, SystemDb};
use tests::system::TestSystem;

use super::support::Ledger;

/// Has the work done over a connection of its own; returns what it gave and how many rows of jobs were read for it.
pub async fn counted<T>(
    system: &TestSystem,
    ledger: &mut Ledger,
    work: impl AsyncFnOnce(SystemDb) -> Result<T>,
) -> Result<(T, i64)> {
    // What the ledger's own connection read before would be told in the middle.
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut ledger.0).await?;
    let before = ledger.rows_read().await?;
    let alone = PoolSettings { max_connections: 1, ..PoolSettings::default() };
    let given = work(SystemDb::open(&system.urls.system, "counted", alone)?).await?;
    ledger.ended("counted").await;
    Ok((given, ledger.rows_read().await? - before))
}
