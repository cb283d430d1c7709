//! Real PostgreSQL for tests: a private database on the shared server, or a private server that can
//! be killed.
//!
//! `SharedServer` is fast and suits most tests; `PrivatePostgres` is for tests that stop or crash
//! the server. Invariant: both return three URLs with the three roles that production has, so no
//! test runs as a superuser by accident. Migrations are not run here.

pub(crate) mod admin;
mod private;
mod shared_server;

pub use private::{PostgresOptions, PrivatePostgres};
pub use shared_server::{SharedServer, TestDatabase};

use anyhow::Result;
use url::Url;

/// One database, with a URL for each of the three roles.
#[derive(Clone, Debug)]
pub struct DatabaseUrls {
    /// For `DATABASE_OWNER_URL`.
    pub owner: String,
    /// For `DATABASE_URL`, role `rota_app` unless the environment names another.
    pub app: String,
    /// For `DATABASE_SYSTEM_URL`, role `rota_system` unless the environment names another.
    pub system: String,
}

impl DatabaseUrls {
    fn new(owner: &Url, database: &str, app: &Credentials, system: &Credentials) -> Result<Self> {
        let mut owner = owner.clone();
        owner.set_path(database);
        Ok(Self { app: app.apply(&owner)?, system: system.apply(&owner)?, owner: owner.into() })
    }
}

/// A role and its password.
#[derive(Clone, Debug)]
struct Credentials {
    role: String,
    password: String,
}

impl Credentials {
    /// The same in every test, since roles belong to the whole cluster.
    fn for_tests(role: &str) -> Self {
        Self { role: role.to_owned(), password: "rota_test".to_owned() }
    }

    fn apply(&self, url: &Url) -> Result<String> {
        let mut url = url.clone();
        let set = url.set_username(&self.role).and_then(|()| url.set_password(Some(&self.password)));
        set.map_err(|()| anyhow::anyhow!("{url} cannot carry a user"))?;
        Ok(url.into())
    }
}
