//! How a pool of connections is set up, the same for both roles.

use std::{fmt::Write as _, time::Duration};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::scarcity::{Scarcity, TURN};
use crate::config::Pooler;

/// A connection that nobody used for so long is closed: a process that has little to do leaves the others theirs.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// A statement that hangs (a dying disk, a lock nobody gives up) must not hold its caller for ever.
const SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "60s"), ("jit", "off")];

/// Size and patience of a connection pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// The most connections that are open at once.
    pub max_connections: u32,
    /// How long a caller waits for a connection before it is told that the database is unavailable.
    pub acquire_timeout: Duration,
    /// How long a tenant's transaction waits for one of the tenant's others to end, where those hold its share of the connections.
    pub share_timeout: Duration,
    /// What stands before PostgreSQL.
    pub pooler: Pooler,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(3),
            share_timeout: Duration::from_secs(3),
            pooler: Pooler::None,
        }
    }
}

/// What a role's sessions begin with: set when a connection is made, so that no statement pays for it.
#[derive(Debug)]
pub(super) struct SessionSettings {
    /// How long a statement waits for a lock, in PostgreSQL's notation.
    pub(super) lock_timeout: &'static str,
    /// Settings of the planner, by name.
    pub(super) planner: &'static [(&'static str, &'static str)],
}

impl SessionSettings {
    fn all(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        SETTINGS.into_iter().chain([("lock_timeout", self.lock_timeout)]).chain(self.planner.iter().copied())
    }
}

/// Opens no connection yet: a process starts, and says that it is not ready, while PostgreSQL is away.
///
/// A connection is asked for a sign of life before each use: most statements belong to a request that nobody repeats, and a
/// crash of PostgreSQL leaves the pool full of dead ones. Who cannot spare that round trip uses [`super::Kept`], and repeats.
pub(super) fn open(
    url: &str,
    application: &str,
    settings: PoolSettings,
    session: &SessionSettings,
    scarcity: Scarcity,
) -> Result<PgPool, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let options = options.application_name(application).log_statements(tracing::log::LevelFilter::Off);
    let options = match settings.pooler {
        Pooler::None => options.options(session.all()),
        // A pooler passes no settings on, and a statement that was prepared on one server connection is unknown on the next.
        Pooler::Transaction => options.extra_float_digits(None).statement_cache_capacity(0),
    };
    Ok(PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(true)
        .min_connections(0)
        .idle_timeout(IDLE_TIMEOUT)
        .after_release(move |_, used| {
            let stays = !scarcity.holds() || used.age < TURN;
            Box::pin(async move { Ok(stays) })
        })
        .connect_lazy_with(options))
}

/// How a transaction begins where a connection keeps nothing: with its settings, and without what another client prepared on
/// the same server connection under the same names.
pub(super) fn begin_behind_pooler(pooler: Pooler, session: &SessionSettings) -> Option<String> {
    if pooler == Pooler::None {
        return None;
    }
    let mut begin = String::from("begin; deallocate all");
    for (name, value) in session.all() {
        let _ = write!(begin, "; set local {name} = '{value}'");
    }
    Some(begin)
}
