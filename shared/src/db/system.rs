//! Access as the role `rota_system`, which works across tenants on the few tables that it was
//! granted.

use super::{
    fitness::Fitness,
    fitness_check::{self, Role},
    pool::{PoolSettings, SessionSettings},
    role_pool::RolePool,
};

/// Statements of the queue carry the rows of many tenants. A lock on one row must not delay the
/// others: the statement fails, and the rows are then written tenant by tenant. The generic plan is
/// forced because, for the concrete ids of a large batch, the planner prefers to compare them with
/// every row of a medium-sized table.
const SESSION: SessionSettings =
    SessionSettings { lock_timeout: "100ms", planner: &[("plan_cache_mode", "force_generic_plan")] };

/// Connections as `rota_system`. The pool is not public, so only statements in `shared` use it.
#[derive(Clone, Debug)]
pub struct SystemDb {
    pool: RolePool,
}

impl SystemDb {
    /// A pool for `url`, which must name the role `rota_system`. Connects on first use.
    pub fn open(url: &str, application: &str, settings: PoolSettings) -> Result<Self, sqlx::Error> {
        Ok(Self { pool: RolePool::open(url, application, settings, &SESSION)? })
    }

    /// Whether the database is usable, for readiness.
    pub async fn fitness(&self) -> Fitness {
        fitness_check::examine(&self.pool, Role::System).await
    }

    /// Closes unused connections; call this every few seconds.
    pub async fn tidy(&self) {
        fitness_check::look_for_scarcity(&self.pool).await;
        self.pool.tidy().await;
    }

    /// The planner settings of its sessions, by name.
    pub fn planner() -> impl Iterator<Item = (&'static str, &'static str)> {
        SESSION.planner()
    }

    pub(crate) const fn pool(&self) -> &RolePool {
        &self.pool
    }
}
