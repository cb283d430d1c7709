//! Access to PostgreSQL, with one handle for each unprivileged role.
//!
//! Invariant: no pool leaves this module. A tenant's rows are reached through [`TenantTx`] (role
//! `rota_app`, row level security applies); the ledger's own queries go through [`SystemDb`] (role
//! `rota_system`, which sees only the tables that it was granted). Next: [`migrate`], which creates
//! the schema and the roles.

mod fitness;
mod fitness_check;
pub mod migrate;
mod pinned;
mod pinned_idle;
mod pool;
mod role_pool;
mod scarcity;
mod scram;
mod session;
mod shares;
mod system;
mod tenant;

pub use fitness::Fitness;
pub use pinned::PinnedConnections;
pub use pool::PoolSettings;
pub use shares::{ShareInUse, is_share_in_use};
pub use system::SystemDb;
pub use tenant::{TenantDb, TenantTx};

/// Whether an error means that PostgreSQL is unreachable or restarting, so that a later retry is
/// right. All other errors are defects of Rota or of the statement.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        // `Configuration` is a state of the installation that an operator must correct: wrong
        // credentials, a missing database, a schema that is not migrated or of another release,
        // missing privileges. Statements are checked at compile time, so they are not the cause.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Configuration(_) => true,
        sqlx::Error::Database(database) if is_unfit(database.as_ref()) => true,
        // 08 connection, 53 resources (too many connections, disk full), 57 cancelled by an
        // operator or a time-out, 58 system error, 40 rolled back in a race, 55P03 lock not
        // available, 25006 the server is a standby.
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            ["08", "53", "57", "58", "40", "55P03", "25006"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// What an operator can do about an error of a database that was not prepared for this release.
pub fn advice(error: &sqlx::Error) -> Option<&'static str> {
    match error.as_database_error()?.code()?.as_ref() {
        "3F000" | "42P01" | "42703" | "42883" => Some(fitness_check::OLDER),
        "28P01" | "28000" => Some(
            "the login is refused: check user name and password; `api migrate` creates the roles that DATABASE_URL and DATABASE_SYSTEM_URL name, unless they exist, and changes no password",
        ),
        _ => None,
    }
}

fn is_unfit(error: &dyn sqlx::error::DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    match &*code {
        "28000" | "28P01" | "3D000" | "3F000" | "42P01" | "42703" | "42883" => true,
        // The same code reports a row of another tenant, which is a defect.
        "42501" => !error.message().contains("row-level security"),
        _ => false,
    }
}

/// Whether a statement exceeded its time-out or was cancelled by an operator. This counts as
/// unavailable too, but the cause may be the requested rows.
pub fn is_timed_out(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57014")
}

/// Whether PostgreSQL is out of reach or out of service, whatever the statement was. A time-out, a
/// lock or a conflict may be the statement's own doing.
pub fn is_outage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    let is_conflict = code.is_some_and(|code| code.starts_with("40"));
    is_unavailable(error) && !is_conflict && !is_timed_out(error) && !is_lock_held(error)
}

/// Whether a statement waited too long for another transaction's lock, or ran into a deadlock.
/// Nothing was committed. The rows of one tenant may be the cause, so the rows of other tenants are
/// tried separately.
pub fn is_lock_held(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03" || code == "40P01")
}

/// Whether that lock was on a row, not on a table: another transaction is changing the same rows.
/// Only a tenant's own requests and jobs change its rows.
pub fn is_row_held(error: &sqlx::Error) -> bool {
    row_held(error).is_some()
}

/// Whether that lock was on the row of an idempotency key: another request with this key has not
/// committed yet.
pub fn is_idempotency_key_held(error: &sqlx::Error) -> bool {
    row_held(error).is_some_and(|row| row.contains("idempotency_keys"))
}

/// The row that the statement waited for, in PostgreSQL's words, which name its table. For a table
/// lock PostgreSQL reports no such context.
fn row_held(error: &sqlx::Error) -> Option<&str> {
    let database = error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    database.r#where().filter(|_| is_lock_held(error))
}

/// An error without values. PostgreSQL's messages repeat the written values (`Key (email)=(…)`,
/// `invalid input …: "…"`), so logs and other tenants see only the SQLSTATE and names of the
/// schema.
pub fn sql_state(error: &sqlx::Error) -> String {
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::Io(error) => format!("the connection to PostgreSQL failed: {}", error.kind()),
            sqlx::Error::Tls(_) => "the TLS handshake with PostgreSQL failed".to_owned(),
            sqlx::Error::PoolTimedOut => "no connection to PostgreSQL was free in time".to_owned(),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                "the connections to PostgreSQL are closed".to_owned()
            }
            sqlx::Error::Protocol(_) => "the protocol of the PostgreSQL connection failed".to_owned(),
            sqlx::Error::RowNotFound => "a row is missing".to_owned(),
            _ => "a row or a setting could not be read".to_owned(),
        };
    };
    let named = |what: &str, name: Option<&str>| name.map(|name| format!(", {what} {name}")).unwrap_or_default();
    let state = database.code().unwrap_or_default();
    let (table, constraint) = (named("table", database.table()), named("constraint", database.constraint()));
    format!("PostgreSQL refused with {state}{table}{constraint}")
}
