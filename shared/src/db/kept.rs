//! Pinned connections, which stay with a frequent user instead of returning to the pool.
//!
//! sqlx pings a connection on acquire and on release: two round trips per statement, one of them
//! just when the statement's result is needed. A pinned connection saves both. It may be dead, so a
//! statement that fails on it is repeated. No connection is pinned behind a pooler in transaction
//! mode or while connections are scarce.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{SystemDb, role_pool::RolePool, session::Session};

/// A connection unused for this long returns to the pool.
const UNUSED: Duration = Duration::from_secs(30);

type Connections = Mutex<Vec<(Instant, PoolConnection<Postgres>)>>;

/// A few connections that are idle between statements, shared by all clones. The most recently used
/// one is used next, because its state is still in the processor's caches.
#[derive(Clone)]
pub struct Kept {
    pool: RolePool,
    most: usize,
    idle: Arc<Connections>,
}

impl Kept {
    /// No pinned connections yet; at most `most` later.
    pub fn new(db: &SystemDb, most: usize) -> Self {
        let idle = Arc::default();
        db.pool().pinned.add(&idle);
        Self { pool: db.pool().clone(), most, idle }
    }

    /// Runs a statement on a pinned connection, or on one from the pool, and waits at most
    /// `patience` for it: see [`Session::answered_within`]. Its writes are durable when this
    /// returns.
    pub(crate) async fn ask<T>(
        &self,
        patience: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let kept = lock(&self.idle).pop();
        let mut session = match kept {
            Some((_, connection)) => Session::Plain(connection),
            None => self.pool.session().await?,
        };
        let answer = session.answered_within(patience, statement).await?;
        self.put(session).await?;
        Ok(answer)
    }

    /// Whether statements passed to [`Self::ask`] run in a transaction, so that their writes take
    /// effect only at its end.
    pub(crate) fn asks_in_transactions(&self) -> bool {
        self.pool.is_behind_pooler()
    }

    /// Pins a connection whose last statement succeeded, and whose writes are durable now. A
    /// connection whose statement failed must be dropped instead, so that the pool checks it.
    async fn put(&self, session: Session) -> Result<(), sqlx::Error> {
        match session {
            Session::Plain(connection) if !self.pool.scarcity().holds() => {
                let mut idle = lock(&self.idle);
                if idle.len() < self.most {
                    idle.push((Instant::now(), connection));
                }
                Ok(())
            }
            session => session.finish().await,
        }
    }

    /// Returns the connections to the pool.
    pub(crate) fn release(&self) {
        lock(&self.idle).clear();
    }
}

/// All pinned connections of a role.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Vec<Weak<Connections>>>>);

impl Idle {
    fn add(&self, connections: &Arc<Connections>) {
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
