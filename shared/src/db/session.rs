//! A connection in the hands of one caller.

use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, Postgres, Transaction, pool::PoolConnection};

/// A connection. Behind a pooler in transaction mode it is a transaction, and what it wrote holds only after
/// [`Session::finish`]; without one each statement holds by itself.
pub enum Session {
    /// A connection of PostgreSQL's own.
    Plain(PoolConnection<Postgres>),
    /// The time between two transactions belongs to others.
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    /// Whether nothing holds before [`Session::finish`].
    pub(crate) const fn is_transaction(&self) -> bool {
        matches!(self, Self::Transaction(_))
    }

    /// Makes what was written durable.
    pub(crate) async fn finish(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Transaction(transaction) => transaction.commit().await,
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Plain(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}
