//! Connections that stay with who uses them all the time.
//!
//! Whatever leaves the pool or comes back to it is asked for a sign of life: two round trips for each statement, one of them at the
//! moment when what the statement brought is to be passed on. A kept connection may be dead, so a statement on it is repeated when it fails.
//! Behind a pooler in transaction mode, and while connections are scarce, none is kept.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{SystemDb, role_pool::RolePool, session::Session};

/// One that was not used for so long goes back to the pool.
const UNUSED: Duration = Duration::from_secs(30);

type Connections = Mutex<Vec<(Instant, PoolConnection<Postgres>)>>;

/// A few connections between two statements, shared by its clones. The one that was used last is used next: what it needs is still in the
/// processor's caches.
#[derive(Clone)]
pub struct Kept {
    pool: RolePool,
    most: usize,
    idle: Arc<Connections>,
}

impl Kept {
    /// None yet, and never more than `most`.
    pub fn new(db: &SystemDb, most: usize) -> Self {
        let idle = Arc::default();
        db.pool().pinned.add(&idle);
        Self { pool: db.pool().clone(), most, idle }
    }

    /// Has a statement answered on one of them, or on one of the pool's, within so long: see [`Session::answered_within`]. What it wrote holds
    /// when this returns.
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

    /// Whether what [`Self::ask`] is given runs in a transaction, so that nothing it writes holds before the end.
    pub(crate) fn asks_in_transactions(&self) -> bool {
        self.pool.is_behind_pooler()
    }

    /// Keeps a connection whose last statement succeeded; what was written on it holds now. Any other is to be dropped, so that the
    /// pool judges it.
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

    /// Gives them back to the pool.
    pub(crate) fn release(&self) {
        lock(&self.idle).clear();
    }
}

/// All kept connections of a role.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Vec<Weak<Connections>>>>);

impl Idle {
    fn add(&self, connections: &Arc<Connections>) {
        let mut all = lock(&self.0);
        all.retain(|connections| connections.strong_count() > 0);
        all.push(Arc::downgrade(connections));
    }

    /// Gives those back to the pool that nobody used lately, or all of them.
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

/// A panic while the lock is held leaves a list that is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
