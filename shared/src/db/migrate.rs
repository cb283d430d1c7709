//! Brings a database to this release's schema: first the roles, then the embedded migrations.
//!
//! Invariant: any number of processes may do this concurrently. Roles are cluster-wide, so each is
//! created idempotently under an advisory lock, and losing a race with another database's migration
//! is not an error; sqlx takes its own lock.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::scram;
use crate::config::DatabaseUrl;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// The versions of this release's migrations, ascending.
pub(super) fn versions() -> Vec<i64> {
    MIGRATOR.iter().map(|migration| migration.version).collect()
}

/// The roles that the migrations grant to. A login with another name becomes a member of one of
/// them.
const APP_ROLE: &str = "rota_app";
const SYSTEM_ROLE: &str = "rota_system";
/// Any number that nothing else in the database uses.
const ROLES_LOCK: i64 = 0x726f_7461_0001;

/// Why a database could not be brought to this release's schema.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A URL has no user name or password to create the role with.
    #[error("{variable}: the URL must carry a user name and a password, for the role that is created from it")]
    Credentials {
        /// The variable that holds the URL.
        variable: &'static str,
    },
    /// The owner's connection or a statement about a role failed.
    #[error("the owner's connection (DATABASE_OWNER_URL)")]
    Database(#[from] sqlx::Error),
    /// A migration failed; the preceding ones are applied.
    #[error("migrations")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Creates the roles named in `app_url` and `system_url` if they are missing, then runs the
/// migrations as the owner.
pub async fn migrate(owner_url: &str, app_url: &str, system_url: &str) -> Result<(), MigrateError> {
    let logins =
        [Login::of(app_url, APP_ROLE, "DATABASE_URL")?, Login::of(system_url, SYSTEM_ROLE, "DATABASE_SYSTEM_URL")?];
    let mut owner = PgConnection::connect(owner_url).await?;
    sqlx::query!("select pg_advisory_lock($1)", ROLES_LOCK).execute(&mut owner).await?;
    for login in &logins {
        login.create(&mut owner).await?;
    }
    sqlx::query_scalar!("select pg_advisory_unlock($1)", ROLES_LOCK).fetch_one(&mut owner).await?;
    MIGRATOR.run(&mut owner).await?;
    owner.close().await?;
    Ok(())
}

struct Login {
    user: String,
    password: String,
    role: &'static str,
}

impl Login {
    fn of(url: &str, role: &'static str, variable: &'static str) -> Result<Self, MigrateError> {
        let parsed = DatabaseUrl::parse(url).map_err(|_| MigrateError::Credentials { variable })?;
        match (parsed.user(), parsed.password()) {
            (Some(user), Some(password)) => Ok(Self { user, password, role }),
            _ => Err(MigrateError::Credentials { variable }),
        }
    }

    /// Does not change the password of an existing role: another database of the cluster may depend
    /// on it.
    async fn create(&self, owner: &mut PgConnection) -> Result<(), sqlx::Error> {
        create_role(owner, self.role, (self.user == self.role).then_some(self.password.as_str())).await?;
        if self.user != self.role {
            create_role(owner, &self.user, Some(&self.password)).await?;
            let grant = format!("grant {} to {}", identifier(self.role), identifier(&self.user));
            sqlx::raw_sql(AssertSqlSafe(grant)).execute(owner).await?;
        }
        Ok(())
    }
}

async fn create_role(owner: &mut PgConnection, name: &str, password: Option<&str>) -> Result<(), sqlx::Error> {
    let exists = sqlx::query_scalar!(r#"select exists (select from pg_roles where rolname = $1) as "exists!""#, name)
        .fetch_one(&mut *owner)
        .await?;
    if exists {
        return Ok(());
    }
    let login = password
        .map_or_else(String::new, |password| format!(" login password {}", literal(&scram::verifier(password))));
    let statement = format!("create role {} nosuperuser nobypassrls nocreatedb nocreaterole{login}", identifier(name));
    match sqlx::raw_sql(AssertSqlSafe(statement)).execute(owner).await {
        // 42710 duplicate_object, 23505: another database's migration created the role in the
        // meantime.
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42710" | "23505")) => Ok(()),
        other => other.map(drop),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{Login, identifier, literal};

    #[test]
    fn names_and_passwords_are_quoted() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn a_url_without_a_password_is_refused() {
        assert!(Login::of("postgres://rota_app@localhost/rota", "rota_app", "DATABASE_URL").is_err());
        let login =
            Login::of("postgres://rota_app:p%40ss@localhost/rota", "rota_app", "DATABASE_URL").expect("has both");
        assert_eq!(login.password, "p@ss");
        let login = Login::of(
            "postgres:///rota?host=/run/postgresql&user=rota_app&password=p%40ss",
            "rota_app",
            "DATABASE_URL",
        )
        .expect("has both");
        assert_eq!((login.user.as_str(), login.password.as_str()), ("rota_app", "p@ss"));
    }
}
