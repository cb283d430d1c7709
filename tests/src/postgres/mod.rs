//! Real PostgreSQL for tests: a database of one's own on the shared server, or a whole server to be killed.
//!
//! `SharedServer` is quick and for most tests; `PrivatePostgres` is for those that stop or crash it. Invariant: both
//! hand out three URLs with the three roles that production has, so no test can run as a superuser by accident.
//! Migrations are not run here.

mod admin;
mod private;
mod shared_server;

pub use private::{PostgresOptions, PrivatePostgres};
pub use shared_server::{SharedServer, TestDatabase};

use anyhow::Result;
use url::Url;

/// One database as the three roles see it.
#[derive(Clone, Debug)]
pub struct DatabaseUrls {
    /// For `DATABASE_OWNER_URL`.
    pub owner: String,
    /// For `DATABASE_URL`, role `rota_app` unless the environment names another.
    pub app: String,
    /// For `DATABASE_SYSTEM_URL`, role `rota_system` likewise.
    pub system: String,
}

impl DatabaseUrls {
    fn new(owner: &Url, database: &str, app: &Credentials, system: &Credentials) -> Result<Self> {
        let mut owner = owner.clone();
        owner.set_path(database);
        Ok(Self { app: app.apply(&owner)?, system: system.apply(&owner)?, owner: owner.into() })
    }
}

/// A role and the password it logs in with.
#[derive(Clone, Debug)]
struct Credentials {
    role: String,
    password: String,
}

impl Credentials {
    /// The same in every test of a cluster, since roles belong to the cluster.
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
