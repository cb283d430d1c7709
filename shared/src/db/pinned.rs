//! Pinned connections, which stay with a frequent user instead of returning to the pool.
//!
//! sqlx pings a connection on acquire and on release: two round trips per statement, one of them
//! just when the statement's result is needed. A pinned connection saves both. It may be dead, so a
//! statement that fails on it is repeated. No connection is pinned behind a pooler in transaction
//! mode or while connections are scarce.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    SystemDb,
    pinned_idle::{Connections, lock},
    role_pool::RolePool,
    session::Session,
};

/// A few connections that are idle between statements, shared by all clones. The most recently used
/// one is used next, because its state is still in the processor's caches.
#[derive(Clone)]
pub struct PinnedConnections {
    pool: RolePool,
    most: usize,
    idle: Arc<Connections>,
}

impl PinnedConnections {
    /// No pinned connections yet; at most `most` later.
    pub fn new(db: &SystemDb, most: usize) -> Self {
        let idle = Arc::default();
        db.pool().pinned.add(&idle);
        Self { pool: db.pool().clone(), most, idle }
    }

    /// Runs a statement on a pinned connection, or on one from the pool, and waits at most
    /// `patience` for it: see [`Session::run_within`]. Its writes are durable when this
    /// returns.
    pub(crate) async fn run<T>(
        &self,
        patience: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let idle = lock(&self.idle).pop();
        let mut session = match idle {
            Some((_, connection)) => Session::Plain(connection),
            None => self.pool.session().await?,
        };
        let result = session.run_within(patience, statement).await?;
        self.put(session).await?;
        Ok(result)
    }

    /// Whether statements passed to [`Self::run`] run in a transaction, so that their writes take
    /// effect only at its end.
    pub(crate) fn runs_in_transactions(&self) -> bool {
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
