//! The machinery's door: the role `rota_system`, which works across tenants on the few tables it was granted.

use super::{
    fitness::{self, Fitness, Role},
    pool::{PoolSettings, SessionSettings},
    role_pool::RolePool,
};

/// Every statement of the machinery finds its rows by an index. Said to the planner, because a plan that was prepared while a
/// table was small (a scan, a hash join) would be kept while it grows; and for any parameters, because for the very ids of a large batch
/// it takes comparing them with each row of a table that is not large for a good plan.
pub const PLANNER: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Statements of the machinery carry the rows of many tenants. A lock that one of them holds must not hold up the others: the statement
/// fails, and the rows are written tenant by tenant.
const SESSION: SessionSettings = SessionSettings { lock_timeout: "100ms", planner: &PLANNER };

/// Connections as `rota_system`. Only the statements in `shared` use them: the pool is not public.
#[derive(Clone, Debug)]
pub struct SystemDb {
    pool: RolePool,
}

impl SystemDb {
    /// A pool for `url`, which must name the role `rota_system`. Connects at the first use.
    pub fn open(url: &str, application: &str, settings: PoolSettings) -> Result<Self, sqlx::Error> {
        Ok(Self { pool: RolePool::open(url, application, settings, &SESSION)? })
    }

    /// Whether the database can be worked with: for readiness.
    pub async fn fitness(&self) -> Fitness {
        fitness::examine(&self.pool, Role::System).await
    }

    /// Gives connections back that nobody uses; to be called every few seconds.
    pub async fn tidy(&self) {
        fitness::look_for_scarcity(&self.pool).await;
        self.pool.tidy().await;
    }

    pub(crate) const fn pool(&self) -> &RolePool {
        &self.pool
    }
}
