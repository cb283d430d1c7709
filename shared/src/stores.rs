//! Handles to both stores, opened from the configuration, and their health checks.
//!
//! Invariant: opening does not connect, so a process starts while a store is unavailable and
//! reports it in its readiness.

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
/// Time-out for one store's check. It is shorter than the probe's time-out for all checks, so that
/// a store that hangs is reported by name and a hanging Redis counts no more than a missing one.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_500);
const TIDY_INTERVAL: Duration = Duration::from_secs(2);

/// Both stores, with a pool for each database role.
#[derive(Clone)]
pub struct Stores {
    /// The ledger, restricted to one tenant at a time.
    pub tenants: TenantDb,
    /// The ledger, for the queue itself.
    pub system: SystemDb,
    /// The index.
    pub index: Index,
}

/// A store's address is not usable.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A database URL is invalid.
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// The Redis URL is invalid.
    #[error("redis")]
    Redis(#[from] redis::RedisError),
}

impl Stores {
    /// Opens both stores; `application` is the name of the connections in PostgreSQL.
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

    /// Closes idle connections while they are scarce, for the lifetime of the process. For stores
    /// without a health probe.
    pub async fn tidy(self) {
        let mut ticks = interval(TIDY_INTERVAL);
        loop {
            ticks.tick().await;
            self.maintain().await;
        }
    }
}

/// Jobs cannot be accepted without the ledger. Without the index jobs only wait, so its absence
/// does not take a process out of service.
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

/// The worse of the two roles' results, with the variable of the role.
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
