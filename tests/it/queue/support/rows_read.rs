//! Counts the job rows read by a part of the engine, from PostgreSQL's statistics, which are
//! flushed when its connection ends.

use anyhow::Result;
use shared::db::{PoolSettings, SystemDb, TenantDb};
use tests::system::TestSystem;

use super::Ledger;

/// The name of the connection in PostgreSQL.
const APPLICATION: &str = "counted";

/// Runs `work` over a connection of its own; returns its result and the number of job rows read.
pub async fn counted<T>(
    system: &TestSystem,
    ledger: &mut Ledger,
    work: impl AsyncFnOnce(SystemDb) -> Result<T>,
) -> Result<(T, i64)> {
    counted_on(ledger, SystemDb::open(&system.urls.system, APPLICATION, alone())?, work).await
}

/// As [`counted`], with the connection of tenants.
pub async fn counted_of_tenants<T>(
    system: &TestSystem,
    ledger: &mut Ledger,
    work: impl AsyncFnOnce(TenantDb) -> Result<T>,
) -> Result<(T, i64)> {
    counted_on(ledger, TenantDb::open(&system.urls.app, APPLICATION, alone())?, work).await
}

fn alone() -> PoolSettings {
    PoolSettings { max_connections: 1, ..PoolSettings::default() }
}

async fn counted_on<D, T>(ledger: &mut Ledger, db: D, work: impl AsyncFnOnce(D) -> Result<T>) -> Result<(T, i64)> {
    // Otherwise earlier reads of the ledger's own connection would be flushed during the
    // measurement.
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut ledger.0).await?;
    let before = ledger.rows_read().await?;
    let given = work(db).await?;
    ledger.ended(APPLICATION).await;
    Ok((given, ledger.rows_read().await? - before))
}
