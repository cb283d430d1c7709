//! The few statements that the harness runs as the owner.
//!
//! Invariant: all of them may run in many test processes at once; losing such a race counts as
//! success.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::timeout;

use super::Credentials;

const TIMEOUT: Duration = Duration::from_secs(30);
const DUPLICATE_OBJECT: &str = "42710";
/// Reported instead if two sessions create the same object at the same moment.
const UNIQUE_VIOLATION: &str = "23505";

/// Runs one statement on a connection of its own.
pub(crate) async fn execute(url: &str, statement: String) -> Result<()> {
    let work = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await
    };
    timeout(TIMEOUT, work).await.context("PostgreSQL does not answer")?.context("administer PostgreSQL")
}

/// Creates the role if it is missing; an existing role keeps its password.
pub(super) async fn ensure_role(url: &str, credentials: &Credentials) -> Result<()> {
    let role = identifier(&credentials.role);
    let password = credentials.password.replace('\'', "''");
    match execute(url, format!("create role {role} login password '{password}'")).await {
        Err(error) if is_duplicate(&error) => Ok(()),
        outcome => outcome,
    }
}

pub(super) async fn create_database(url: &str, name: &str) -> Result<()> {
    // Open connections to the template make the copy fail, and `template0` never has any.
    execute(url, format!("create database {} template template0", identifier(name))).await
}

pub(super) async fn drop_database(url: &str, name: &str) -> Result<()> {
    execute(url, format!("drop database if exists {} with (force)", identifier(name))).await
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    let code = error
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some(DUPLICATE_OBJECT | UNIQUE_VIOLATION))
}
