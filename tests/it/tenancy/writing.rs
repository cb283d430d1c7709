//! Another tenant's rows cannot be changed, deleted or added.

use anyhow::Result;
use sqlx::AssertSqlSafe;

use super::world::World;

/// Either the grants of the table refuse the statement, or row level security leaves it no matching
/// row.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_rows_are_neither_updated_nor_deleted() -> Result<()> {
    let mut world = World::new().await?;
    for (table, column) in world.tables().await? {
        for statement in [
            format!("update {table} set {column} = {column} where {column} = '{}'", world.acme),
            format!("delete from {table} where {column} = '{}'", world.acme),
        ] {
            let mut transaction = world.system.tenants.begin(world.other).await?;
            match sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut *transaction).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{statement}"),
                Err(error) => {
                    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
                    assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
                }
            }
        }
    }
    Ok(())
}

/// Writes a row under the other tenant's id, and moves an own row to the other tenant.
#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_written_for_another_tenant() -> Result<()> {
    let mut world = World::new().await?;
    for (table, column) in world.tables().await? {
        let row = world.row(&table, column).await?;
        let insert = format!("insert into {table} select * from jsonb_populate_record(null::{table}, '{row}')");
        let give_away = format!("update {table} set {column} = '{}'", world.other);
        for (tenant, statement) in [(world.other, insert), (world.acme, give_away)] {
            let mut transaction = world.system.tenants.begin(tenant).await?;
            let refused = sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut *transaction).await;
            let code = refused.as_ref().err().and_then(|error| error.as_database_error()?.code());
            assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused:?}");
        }
    }
    Ok(())
}
