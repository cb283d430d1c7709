//! A database per test on the server of `DATABASE_OWNER_URL`.
//!
//! Invariant: a database is dropped with its handle, even with open connections. If `DATABASE_URL`
//! and `DATABASE_SYSTEM_URL` are set, their roles and passwords are used, so tests and a
//! development set-up can share a server.

use anyhow::{Context, Result};
use url::Url;
use uuid::Uuid;

use super::{Credentials, DatabaseUrls, admin};

#[derive(Clone, Debug)]
pub struct SharedServer {
    owner: Url,
    app: Credentials,
    system: Credentials,
}

impl SharedServer {
    pub fn from_env() -> Result<Self> {
        let owner = url_from_env("DATABASE_OWNER_URL")?.context("DATABASE_OWNER_URL is not set: run bin/test")?;
        Ok(Self {
            owner,
            app: credentials_from_env("DATABASE_URL", "rota_app")?,
            system: credentials_from_env("DATABASE_SYSTEM_URL", "rota_system")?,
        })
    }

    /// Like `from_env`, with the test roles.
    pub fn new(owner_url: &str) -> Result<Self> {
        let owner = Url::parse(owner_url)?;
        Ok(Self { owner, app: Credentials::for_tests("rota_app"), system: Credentials::for_tests("rota_system") })
    }

    /// Creates an empty database with a unique name, and the roles if they are missing.
    pub async fn create_database(&self) -> Result<TestDatabase> {
        let server_url = self.owner.as_str();
        for credentials in [&self.app, &self.system] {
            admin::ensure_role(server_url, credentials).await?;
        }
        let name = format!("rota_test_{}", Uuid::new_v4().simple());
        admin::create_database(server_url, &name).await?;
        let urls = DatabaseUrls::new(&self.owner, &name, &self.app, &self.system)?;
        Ok(TestDatabase { name, urls, server_url: server_url.to_owned() })
    }
}

/// A database that is dropped on the server with this handle.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    urls: DatabaseUrls,
    server_url: String,
}

impl TestDatabase {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, name) = (std::mem::take(&mut self.server_url), std::mem::take(&mut self.name));
        // A thread, because the test's runtime may be the one that is shutting down. Best effort: a
        // missing server must not turn a failing test into an abort.
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(admin::drop_database(&url, &name))
        });
        let _ = dropping.join();
    }
}

fn credentials_from_env(variable: &str, role: &str) -> Result<Credentials> {
    let Some(url) = url_from_env(variable)? else { return Ok(Credentials::for_tests(role)) };
    let role = url.username().to_owned();
    let password = url.password().unwrap_or_default().to_owned();
    Ok(Credentials { role, password })
}

fn url_from_env(variable: &str) -> Result<Option<Url>> {
    let Some(value) = std::env::var_os(variable) else { return Ok(None) };
    let value = value.to_string_lossy();
    Url::parse(&value).map(Some).with_context(|| format!("{variable} is not a URL"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{PostgresOptions, PrivatePostgres};
    use sqlx::{Connection, PgConnection};

    async fn user(url: &str) -> (String, String) {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::query_as("select current_user::text, current_database()::text").fetch_one(&mut connection).await.unwrap()
    }

    #[tokio::test]
    async fn databases_are_made_in_parallel_and_dropped_with_their_handles() {
        let cluster =
            PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await.unwrap();
        let server = SharedServer::new(&cluster.urls().owner).unwrap();
        let made = futures::future::try_join_all((0..4).map(|_| server.create_database())).await.unwrap();
        let urls = made[0].urls().clone();
        assert_eq!(user(&urls.app).await, ("rota_app".to_owned(), made[0].name().to_owned()));
        assert_eq!(user(&urls.system).await.0, "rota_system");
        assert_eq!(user(&urls.owner).await.0, "postgres");

        let connected = PgConnection::connect(&urls.app).await.unwrap();
        drop(made);
        PgConnection::connect(&urls.app).await.unwrap_err();
        drop(connected);
        assert_eq!(user(&cluster.urls().owner).await.1, "rota");
    }
}
