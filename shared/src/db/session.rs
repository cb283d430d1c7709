//! A connection in the hands of one caller.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, Transaction, pool::PoolConnection};
use tokio::time::timeout;

/// A connection. Behind a pooler in transaction mode it is a transaction, and what it wrote holds only after
/// [`Session::finish`]; without one each statement holds by itself.
pub enum Session {
    /// A connection of PostgreSQL's own.
    Plain(PoolConnection<Postgres>),
    /// The time between two transactions belongs to others.
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    /// Waits so long for an answer. A connection that has lost the server without being told (a firewall that forgot it, a machine that is gone)
    /// stays silent for ever; after that time it is closed, whatever the server makes of the statement, and the next statement has another.
    pub(crate) async fn answered_within<T>(
        &mut self,
        patience: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if let Ok(answer) = timeout(patience, statement(self)).await {
            return answer;
        }
        // Otherwise the pool would ask it for a sign of life, and wait for that for ever too.
        if let Self::Plain(connection) = self {
            connection.close_on_drop();
        }
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer a statement in time")))
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
