//! A connection that stays with who uses it all the time.
//!
//! Whatever comes back to the pool is asked for a sign of life: a round trip after every statement, at the moment when what the statement
//! brought is to be passed on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use super::SystemDb;

/// At most one connection between two statements. Its clones share it; two at a time take another from the pool.
#[derive(Clone)]
pub(crate) struct Kept {
    pool: PgPool,
    idle: Arc<Mutex<Option<PoolConnection<Postgres>>>>,
}

impl Kept {
    /// None yet.
    pub(crate) fn new(db: &SystemDb) -> Self {
        Self { pool: db.pool().clone(), idle: Arc::default() }
    }

    /// The kept connection, or one of the pool's.
    pub(crate) async fn take(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let kept = self.idle().take();
        match kept {
            Some(connection) => Ok(connection),
            None => self.pool.acquire().await,
        }
    }

    /// Keeps a connection whose last statement succeeded. Any other is to be dropped, so that the pool judges it.
    pub(crate) fn put(&self, connection: PoolConnection<Postgres>) {
        self.idle().get_or_insert(connection);
    }

    /// Gives it back to the pool.
    pub(crate) fn release(&self) {
        drop(self.idle().take());
    }

    /// A panic while the lock is held leaves an option that is still whole.
    fn idle(&self) -> MutexGuard<'_, Option<PoolConnection<Postgres>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
