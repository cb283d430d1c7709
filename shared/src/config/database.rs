//! How to reach PostgreSQL, under a role for each purpose.
//!
//! Invariant: the roles stay apart. `app` is subject to row level security, `system` serves queue and scheduler, and
//! the owner, who may change the schema, is in the migration's configuration alone (`process.rs`).

use std::fmt;

use url::Url;

use super::environment::Environment;
use super::reader::{Reader, Variable};

const EXPECTED: &str = "postgres://user:password@host:port/database";
const APP: Variable = Variable::secret("DATABASE_URL", EXPECTED);
const SYSTEM: Variable = Variable::secret("DATABASE_SYSTEM_URL", EXPECTED);
const OWNER: Variable = Variable::secret("DATABASE_OWNER_URL", EXPECTED);

/// Passwords that the world knows; in production they are as good as none. The user's own name is one more.
const KNOWN_PASSWORDS: [&str; 8] =
    ["admin", "changeme", "password", "postgres", "rota", "rota_app", "rota_system", "secret"];

/// The address of a database with role and password; `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Url);

impl DatabaseUrl {
    /// Accepts `postgres://` and `postgresql://`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        matches!(url.scheme(), "postgres" | "postgresql").then_some(Self(url))
    }

    /// The whole address, password included, for the database driver.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    fn has_known_password(&self) -> bool {
        let user = self.0.username();
        self.0.password().is_some_and(|password| password == user || KNOWN_PASSWORDS.contains(&password))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // A postgres address has an authority wherever it has a password, so this cannot fail; were it to, showing nothing is right.
            shown.set_password(Some("***")).map_err(|()| fmt::Error)?;
        }
        // A password may also come as a parameter.
        shown.set_query(None);
        write!(out, "DatabaseUrl({shown})")
    }
}

/// The database section of api, worker and scheduler.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`, role `rota_app`; required. Row level security applies.
    pub app: DatabaseUrl,
    /// `DATABASE_SYSTEM_URL`, role `rota_system`; required. Queue writer, rescuer, scheduler.
    pub system: DatabaseUrl,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        let app = read_url(reader, APP, environment);
        let system = read_url(reader, SYSTEM, environment);
        Some(Self { app: app?, system: system? })
    }
}

/// `DATABASE_OWNER_URL`, the role that owns the schema; required by migrations.
pub(super) fn read_owner(reader: &mut Reader<'_>, environment: Environment) -> Option<DatabaseUrl> {
    read_url(reader, OWNER, environment)
}

fn read_url(reader: &mut Reader<'_>, variable: Variable, environment: Environment) -> Option<DatabaseUrl> {
    let url = reader.required(variable, DatabaseUrl::parse)?;
    if environment.is_production() && url.has_known_password() {
        reader.report(variable, "a well-known password is refused in production");
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_form_of_password() {
        let url = DatabaseUrl::parse("postgres://rota_app:hunter2@db:5432/rota?password=hunter3").unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://rota_app:***@db:5432/rota)");
        assert!(url.expose().contains("hunter2"));
    }

    #[test]
    fn only_postgres_addresses_are_accepted() {
        assert!(DatabaseUrl::parse("postgresql:///rota?host=/run/postgresql").is_some());
        assert!(DatabaseUrl::parse("mysql://localhost/rota").is_none());
        assert!(DatabaseUrl::parse("localhost:5432").is_none());
    }

    #[test]
    fn a_password_equal_to_the_role_is_a_known_one() {
        let known = |text| DatabaseUrl::parse(text).unwrap().has_known_password();
        assert!(known("postgres://alice:alice@db/rota"));
        assert!(known("postgres://rota_app:postgres@db/rota"));
        assert!(!known("postgres://rota_app:cmFuZG9t@db/rota"));
        assert!(!known("postgres://rota_app@db/rota"));
    }
}
