//! The plans that PostgreSQL makes, once, for the queue's prepared statements.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shared::db::SystemDb;
use sqlx::{Executor as _, PgConnection};
use tests::system::TestSystem;

use crate::queue::support::Ledger;

/// No job waits, so the index of waiting jobs is empty: the planner estimates a scan of it as
/// cheaper than a look-up in the primary key, and would keep that plan when a million jobs wait.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_looked_up_by_primary_key_while_none_wait() -> Result<()> {
    let system = TestSystem::start().await?;
    let (tenant, mut ledger) = (system.tenant("acme").await?, Ledger::open(&system).await?);
    ledger.fill(tenant, "completed", 20_000).await?;
    ledger.analyze().await?;
    for (name, value) in SystemDb::planner() {
        sqlx::query(sqlx::AssertSqlSafe(format!("set {name} = {value}"))).execute(&mut ledger.0).await?;
    }
    let mut checked = 0;
    for (statement, parameters) in statements()? {
        if !(statement.contains("jobs j") && statement.contains("j.id = i.id")
            || statement.contains("from jobs where id = any($1)"))
        {
            continue;
        }
        // With a given tenant, the tenant's index finds the row just as directly.
        let good = |index: &str| index.ends_with("_tenant_id_id_idx") && statement.contains("tenant_id = ");
        for line in plan(&mut ledger.0, &statement, parameters).await? {
            let mut indexes =
                line.split_whitespace().filter(|word| word.starts_with("jobs_2") && word.contains("_idx"));
            ensure!(indexes.all(good), "{line} for: {statement}");
        }
        checked += 1;
    }
    ensure!(checked >= 8, "only {checked} look-ups were found");
    Ok(())
}

/// The statements checked at compile time, with their numbers of parameters.
fn statements() -> Result<Vec<(String, usize)>> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    let mut statements = Vec::new();
    for file in fs::read_dir(cache)? {
        let entry: Value = serde_json::from_slice(&fs::read(file?.path())?)?;
        let text = entry["query"].as_str().context("a cached query has its text")?;
        let parameters = entry["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        statements.push((text.to_owned(), parameters));
    }
    Ok(statements)
}

async fn plan(connection: &mut PgConnection, statement: &str, parameters: usize) -> Result<Vec<String>> {
    let nulls = vec!["null"; parameters].join(", ");
    connection.execute(sqlx::AssertSqlSafe(format!("prepare planned as {statement}"))).await?;
    let lines = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain (costs off) execute planned({nulls})")));
    let lines = lines.fetch_all(&mut *connection).await?;
    connection.execute("deallocate planned").await?;
    Ok(lines)
}
