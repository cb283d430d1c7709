//! How a pool of connections is set up, the same for both roles.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

/// Size and patience of a connection pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// The most connections that are open at once.
    pub max_connections: u32,
    /// How long a caller waits for a connection before it is told that the database is unavailable.
    pub acquire_timeout: Duration,
    /// How long a tenant's transaction waits for one of the tenant's others to end, where those hold its share of the connections.
    pub share_timeout: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { max_connections: 10, acquire_timeout: Duration::from_secs(3), share_timeout: Duration::from_secs(3) }
    }
}

/// Opens no connection yet: a process starts, and says that it is not ready, while PostgreSQL is away.
/// `planner`: settings of its planner, by name.
///
/// A connection is asked for a sign of life before each use: most statements belong to a request that nobody repeats, and a
/// crash of PostgreSQL leaves the pool full of dead ones. Who cannot spare that round trip uses [`super::Kept`], and repeats.
pub(super) fn open(
    url: &str,
    application: &str,
    settings: PoolSettings,
    planner: &[(&str, &str)],
) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(true)
        .connect_lazy_with(
            options
                .application_name(application)
                .log_statements(tracing::log::LevelFilter::Off)
                // A statement that hangs (a dying disk, a lock nobody gives up) must not hold its caller for ever.
                .options([("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "60s"), ("jit", "off")])
                .options(planner.iter().copied()),
        ))
}
