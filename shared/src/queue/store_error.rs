//! Failure of one of the two stores.

use std::sync::Arc;

/// A store did not answer, or refused a call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// PostgreSQL. Shared, because one read can serve several calls.
    #[error("ledger: {0}")]
    Ledger(Arc<sqlx::Error>),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Ledger(Arc::new(error))
    }
}
