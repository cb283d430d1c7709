//! A connection in use by one caller.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, Transaction, pool::PoolConnection};
use tokio::time::timeout;

/// A connection. Behind a pooler in transaction mode it is a transaction, whose writes take effect
/// only after [`Session::finish`]; otherwise each statement takes effect on its own.
pub enum Session {
    /// A direct PostgreSQL connection.
    Plain(PoolConnection<Postgres>),
    /// A transaction; between two transactions the server connection belongs to other clients.
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    /// Waits at most `patience` for the result. A connection that has silently lost its server (a
    /// firewall dropped its state, a machine is gone) never returns anything. After the time-out it
    /// is closed, whatever the server does with the statement, and the next statement uses another
    /// connection.
    pub(crate) async fn run_within<T>(
        &mut self,
        patience: Duration,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        if let Ok(result) = timeout(patience, statement(self)).await {
            return result;
        }
        // Otherwise the pool would ping the connection and wait for that forever too.
        if let Self::Plain(connection) = self {
            connection.close_on_drop();
        }
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no response to a statement within the time-out")))
    }

    /// Makes the writes durable.
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
