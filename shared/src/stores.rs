//! The doors to both stores, opened from the configuration, and whether they answer.
//!
//! Invariant: opening connects to nothing, so a process starts while a store is away and says so in its readiness.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::{interval, timeout};

use crate::{
    config::{DatabaseConfig, RedisConfig},
    db::{Fitness, PoolSettings, SystemDb, TenantDb},
    health::{Check, CheckState, HealthChecks},
    queue::{Index, IndexSettings},
};

const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
/// For one store's answer to a check. Shorter than what a probe waits for all, so that one that hangs is told by name and a hung
/// Redis is no more than a missing one.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_500);
const TIDY_INTERVAL: Duration = Duration::from_secs(2);

/// Both stores, as the two roles.
#[derive(Clone)]
pub struct Stores {
    /// The ledger, one tenant at a time.
    pub tenants: TenantDb,
    /// The ledger, for the queue's machinery.
    pub system: SystemDb,
    /// The index.
    pub index: Index,
}

/// A store could not even be addressed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A database URL is not one.
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// The Redis URL is not one.
    #[error("redis")]
    Redis(#[from] redis::RedisError),
}

impl Stores {
    /// Opens both stores; `application` is what PostgreSQL shows of the connections.
    pub fn open(
        database: &DatabaseConfig,
        redis: &RedisConfig,
        application: &str,
        pool: PoolSettings,
    ) -> Result<Self, OpenError> {
        let index = IndexSettings {
            url: redis.url.expose().to_owned(),
            prefix: redis.prefix.as_str().to_owned(),
            response_timeout: REDIS_TIMEOUT,
            shards: redis.shards.clone(),
        };
        let pool = PoolSettings { pooler: database.pooler, ..pool };
        Ok(Self {
            tenants: TenantDb::open(database.app.expose(), application, pool)?,
            system: SystemDb::open(database.system.expose(), application, pool)?,
            index: Index::open(&index)?,
        })
    }

    /// Gives connections back while they are scarce, for as long as the process lives: for stores that no probe looks at.
    pub async fn tidy(self) {
        let mut ticks = interval(TIDY_INTERVAL);
        loop {
            ticks.tick().await;
            self.maintain().await;
        }
    }
}

/// Nothing is accepted without the ledger; without the index work only waits, so its absence is no reason to take a process out.
impl HealthChecks for Stores {
    fn check(&self) -> BoxFuture<'_, Vec<Check>> {
        async move {
            let (tenants, system, index) = tokio::join!(
                timeout(CHECK_TIMEOUT, self.tenants.fitness()),
                timeout(CHECK_TIMEOUT, self.system.fitness()),
                timeout(CHECK_TIMEOUT, self.index.fitness()),
            );
            let late = |_: tokio::time::error::Elapsed| Fitness::Unfit("no answer in time".into());
            let database = database_check([
                ("DATABASE_URL", tenants.unwrap_or_else(late)),
                ("DATABASE_SYSTEM_URL", system.unwrap_or_else(late)),
            ]);
            let redis = match index.unwrap_or(Err("no answer in time".into())) {
                Ok(()) => Check::up("redis"),
                Err(reason) => Check::failing("redis", CheckState::Degraded, reason),
            };
            vec![database, redis]
        }
        .boxed()
    }

    fn maintain(&self) -> BoxFuture<'_, ()> {
        async move {
            tokio::join!(self.tenants.tidy(), self.system.tidy());
        }
        .boxed()
    }
}

/// The worse of the two roles' findings, and which of them it is.
fn database_check(findings: [(&'static str, Fitness); 2]) -> Check {
    let mut check = Check::up("database");
    for (variable, fitness) in findings {
        let (state, reason) = match fitness {
            Fitness::Fit => continue,
            Fitness::Flawed(reason) => (CheckState::Degraded, reason),
            Fitness::Unfit(reason) => (CheckState::Down, reason),
        };
        if check.state == CheckState::Up || (check.state == CheckState::Degraded && state == CheckState::Down) {
            check = Check::failing("database", state, format!("{variable}: {reason}"));
        }
    }
    check
}
