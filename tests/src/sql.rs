//! SQL for rows that tests read and write directly in the ledger.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, Decode, PgConnection, Postgres, Type};

use crate::postgres::admin;

/// Executes a statement over a connection of its own.
pub async fn execute(url: &str, statement: &str) -> Result<()> {
    admin::execute(url, statement.to_owned()).await
}

/// The only value of the only row of a query.
pub async fn one<T>(url: &str, query: &str) -> Result<T>
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
{
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await?)
}

/// The expression for the id of a job created at `time`, which is an SQL expression itself. Ids
/// sort by time, like those of the producer, and are random otherwise.
pub fn id_at(time: &str) -> String {
    format!("overlay(gen_random_uuid()::text placing left(uuid_at({time})::text, 13) || '-7' from 1 for 15)::uuid")
}
