//! PostgreSQL addresses, with a separate role for each purpose.
//!
//! Invariant: the roles stay separate. `app` is subject to row level security, `system` is for
//! queue and scheduler, and the owner, who may change the schema, is in the migration's
//! configuration only (`process.rs`).

use super::database_url::DatabaseUrl;
use super::environment::Environment;
use super::reader::{Reader, Variable};

const EXPECTED: &str = "postgres://user:password@host:port/database";
const POOLER: Variable = Variable::new("ROTA_DATABASE_POOLER", "none or transaction");
const APP: Variable = Variable::secret("DATABASE_URL", EXPECTED);
const SYSTEM: Variable = Variable::secret("DATABASE_SYSTEM_URL", EXPECTED);
const OWNER: Variable = Variable::secret("DATABASE_OWNER_URL", EXPECTED);

/// Well-known passwords, which are refused in production. A password equal to the user name is
/// refused too.
const KNOWN_PASSWORDS: [&str; 8] =
    ["admin", "changeme", "password", "postgres", "rota", "rota_app", "rota_system", "secret"];

/// Whether a pooler that assigns server connections per transaction is in front of PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Connections are direct PostgreSQL sessions.
    #[default]
    None,
    /// `PgBouncer` in transaction mode or a similar pooler: no session state survives a
    /// transaction.
    Transaction,
}

/// The database section of api, worker and scheduler.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`, role `rota_app`; required. Row level security applies.
    pub app: DatabaseUrl,
    /// `DATABASE_SYSTEM_URL`, role `rota_system`; required. Queue writer, rescuer, scheduler.
    pub system: DatabaseUrl,
    /// `ROTA_DATABASE_POOLER`, `none` or `transaction`; default `none`. Applies to both URLs.
    pub pooler: Pooler,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        let app = read_url(reader, APP, environment);
        let system = read_url(reader, SYSTEM, environment);
        let pooler = reader.or(POOLER, Pooler::None, |text| match text {
            "none" => Some(Pooler::None),
            "transaction" => Some(Pooler::Transaction),
            _ => None,
        });
        Some(Self { app: app?, system: system?, pooler })
    }
}

/// `DATABASE_OWNER_URL`, the role that owns the schema; required by migrations.
pub(super) fn read_owner(reader: &mut Reader<'_>, environment: Environment) -> Option<DatabaseUrl> {
    read_url(reader, OWNER, environment)
}

fn read_url(reader: &mut Reader<'_>, variable: Variable, environment: Environment) -> Option<DatabaseUrl> {
    let url = reader.required_or_reason(variable, DatabaseUrl::parse)?;
    if environment.is_production() && has_well_known_password(&url) {
        reader.report(variable, "a well-known password is refused in production");
    }
    Some(url)
}

fn has_well_known_password(url: &DatabaseUrl) -> bool {
    let (user, password) = (url.user(), url.password());
    password.is_some_and(|password| user.as_ref() == Some(&password) || KNOWN_PASSWORDS.contains(&password.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_equal_to_the_role_is_a_default_password() {
        let known = |text| has_well_known_password(&DatabaseUrl::parse(text).unwrap());
        assert!(known("postgres://alice:alice@db/rota"));
        assert!(known("postgres://rota_app:postgres@db/rota"));
        assert!(known("postgres://db/rota?user=alice&password=alice"));
        assert!(!known("postgres://rota_app:cmFuZG9t@db/rota"));
        assert!(!known("postgres://rota_app@db/rota"));
    }
}
