//! The machinery's door: the role `rota_system`, which works across tenants on the few tables it was granted.

use super::pool::{self, PoolSettings};

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
const LOCK_TIMEOUT: &str = "100ms";

/// Connections as `rota_system`. Only the statements in `shared` use them: the pool is not public.
#[derive(Clone, Debug)]
pub struct SystemDb {
    pool: sqlx::PgPool,
}

impl SystemDb {
    /// A pool for `url`, which must name the role `rota_system`. Connects at the first use.
    pub fn open(url: &str, application: &str, settings: PoolSettings) -> Result<Self, sqlx::Error> {
        Ok(Self { pool: pool::open(url, application, settings, LOCK_TIMEOUT, &PLANNER)? })
    }

    /// Answers when the database does: for readiness.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query_scalar!("select 1").fetch_one(&self.pool).await.map(drop)
    }

    pub(crate) const fn pool(&self) -> &sqlx::PgPool {
        &self.pool
    }
}
