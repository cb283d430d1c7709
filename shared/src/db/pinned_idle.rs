//! The pinned connections of a role that are idle between statements.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{Postgres, pool::PoolConnection};
use tokio::time::Instant;

/// A connection unused for this long returns to the pool.
const UNUSED: Duration = Duration::from_secs(30);

/// The idle connections of one user, each with the time of its last use.
pub(super) type Connections = Mutex<Vec<(Instant, PoolConnection<Postgres>)>>;

/// All pinned connections of a role.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Vec<Weak<Connections>>>>);

impl Idle {
    pub(super) fn add(&self, connections: &Arc<Connections>) {
        let mut all = lock(&self.0);
        all.retain(|connections| connections.strong_count() > 0);
        all.push(Arc::downgrade(connections));
    }

    /// Returns unused connections to the pool, or all of them.
    pub(super) fn release_unused(&self, all: bool) {
        let users: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        for connections in users {
            lock(&connections).retain(|(used, _)| !all && used.elapsed() < UNUSED);
        }
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Idle")
    }
}

/// A panic while the lock is held leaves the list consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
