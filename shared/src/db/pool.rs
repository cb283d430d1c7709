//! Configuration of the connection pools, the same for both roles.

use std::{fmt::Write as _, time::Duration};

use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::scarcity::{Scarcity, TURN};
use crate::config::Pooler;

/// A connection unused for this long is closed, so that a mostly idle process leaves connections to
/// others.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Time-outs prevent a hanging statement (a failing disk, a lock that is never released) from
/// blocking its caller forever.
const SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "60s"), ("idle_in_transaction_session_timeout", "60s"), ("jit", "off")];

/// Planner settings of all roles: every statement finds its rows by an index. Without these
/// settings, a plan prepared while a table was small (a scan, a hash join) would stay in use while
/// the table grows.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off")];

/// Size and time-outs of a connection pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Maximum number of open connections.
    pub max_connections: u32,
    /// How long a caller waits for a connection before the database counts as unavailable.
    pub acquire_timeout: Duration,
    /// How long a tenant's transaction waits for another one of the same tenant to end, if those
    /// hold the tenant's share of the connections.
    pub share_timeout: Duration,
    /// The pooler in front of PostgreSQL, if any.
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

/// Initial settings of a role's sessions. They are set when a connection opens, so no statement
/// pays for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionSettings {
    /// Maximum wait of a statement for a lock, in PostgreSQL's notation.
    pub(super) lock_timeout: &'static str,
    /// The role's own planner settings, by name.
    pub(super) planner: &'static [(&'static str, &'static str)],
}

impl SessionSettings {
    /// Planner settings, by name.
    pub(super) fn planner(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        BY_INDEX.into_iter().chain(self.planner.iter().copied())
    }

    fn all(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        SETTINGS.into_iter().chain([("lock_timeout", self.lock_timeout)]).chain(self.planner())
    }
}

/// Opens no connection yet: a process starts, and reports that it is not ready, while PostgreSQL is
/// unavailable.
///
/// A connection is pinged before each use: most statements belong to requests that are not retried,
/// and a crash of PostgreSQL leaves the pool full of dead connections. Callers that cannot afford
/// that round trip use [`super::PinnedConnections`] and repeat failed statements.
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
        // A pooler forwards no settings, and a statement prepared on one server connection is
        // unknown on another.
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

/// The start of a transaction where connections keep no state: sets the session settings, and
/// removes statements that another client prepared on the same server connection under the same
/// names.
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
