//! The doors to both stores, opened from the configuration, and whether they answer.
//!
//! Invariant: opening connects to nothing, so a process starts while a store is away and says so in its readiness.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};

use crate::{
    config::{DatabaseConfig, RedisConfig},
    db::{PoolSettings, SystemDb, TenantDb},
    health::{Check, CheckState, HealthChecks},
    queue::{Index, IndexSettings},
};

const REDIS_TIMEOUT: Duration = Duration::from_secs(2);
/// For one store's answer to a check. Shorter than what a probe waits for all, so that one that hangs is told by name and a hung
/// Redis is no more than a missing one.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_500);

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
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The Redis URL is not one.
    #[error("redis: {0}")]
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
        Ok(Self {
            tenants: TenantDb::open(database.app.expose(), application, pool)?,
            system: SystemDb::open(database.system.expose(), application, pool)?,
            index: Index::open(&index)?,
        })
    }
}

/// Nothing is accepted without the ledger; without the index work only waits, so its absence is no reason to take a process out.
impl HealthChecks for Stores {
    fn check(&self) -> BoxFuture<'_, Vec<Check>> {
        async move {
            let (tenants, system, index) =
                tokio::join!(answers(self.tenants.ping()), answers(self.system.ping()), answers(self.index.ping()));
            let database = if tenants && system { CheckState::Up } else { CheckState::Down };
            let index = if index { CheckState::Up } else { CheckState::Degraded };
            vec![Check { name: "database", state: database }, Check { name: "redis", state: index }]
        }
        .boxed()
    }
}

async fn answers<T, E>(ping: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(CHECK_TIMEOUT, ping).await, Ok(Ok(_)))
}
