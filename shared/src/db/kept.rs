//! Connections that stay with who uses them all the time.
//!
//! Whatever leaves the pool or comes back to it is asked for a sign of life: two round trips for each statement, one of them at the
//! moment when what the statement brought is to be passed on. A kept connection may be dead, so a statement on it is repeated when it fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use super::SystemDb;

/// A few connections between two statements, shared by its clones. The one that was used last is used next: what it needs is still in the
/// processor's caches.
#[derive(Clone)]
pub struct Kept {
    pool: PgPool,
    most: usize,
    idle: Arc<Mutex<Vec<PoolConnection<Postgres>>>>,
}

impl Kept {
    /// None yet, and never more than `most`.
    pub fn new(db: &SystemDb, most: usize) -> Self {
        Self { pool: db.pool().clone(), most, idle: Arc::default() }
    }

    /// A kept connection, or one of the pool's.
    pub(crate) async fn take(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let kept = self.idle().pop();
        match kept {
            Some(connection) => Ok(connection),
            None => self.pool.acquire().await,
        }
    }

    /// Keeps a connection whose last statement succeeded. Any other is to be dropped, so that the pool judges it.
    pub(crate) fn put(&self, connection: PoolConnection<Postgres>) {
        let mut idle = self.idle();
        if idle.len() < self.most {
            idle.push(connection);
        }
    }

    /// Gives them back to the pool.
    pub(crate) fn release(&self) {
        self.idle().clear();
    }

    /// A panic while the lock is held leaves a list that is still whole.
    fn idle(&self) -> MutexGuard<'_, Vec<PoolConnection<Postgres>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
