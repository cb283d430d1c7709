//! The connection pool of one role, and its behaviour when there are fewer connections than needed.
//!
//! It differs from sqlx's pool in two ways. While connections are scarce (`scarcity.rs`), a caller
//! that waits for a new connection also takes one that another caller releases, which sqlx's pool
//! does not do, and no connection is held longer than it is used. Behind a pooler in transaction
//! mode, every statement runs in a transaction that sets its own session settings, because the next
//! statement may run on another server connection: sqlx sends a statement in two steps, which must
//! reach the same one.
//!
//! Invariant: connections are taken from sqlx's pool only here.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Error, Execute, Executor, PgPool, Postgres, SqlStr, Transaction,
    pool::{MaybePoolConnection, PoolConnection},
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{
    fitness::Findings,
    pinned_idle::Idle,
    pool::{self, PoolSettings, SessionSettings},
    scarcity::Scarcity,
    session::Session,
};

/// Interval between checks for a released connection.
const LOOK: Duration = Duration::from_millis(20);

/// The connections of one role. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RolePool {
    pool: PgPool,
    /// Start of a transaction behind a pooler; `None` without one.
    begin: Option<Arc<str>>,
    scarcity: Scarcity,
    findings: Findings,
    /// While connections are scarce, only one caller at a time tries to open another.
    opening: Arc<Semaphore>,
    acquire_timeout: Duration,
    pub(super) pinned: Idle,
}

impl RolePool {
    /// Does not connect yet.
    pub(super) fn open(
        url: &str,
        application: &str,
        settings: PoolSettings,
        session: &SessionSettings,
    ) -> Result<Self, Error> {
        let scarcity = Scarcity::default();
        Ok(Self {
            pool: pool::open(url, application, settings, session, scarcity.clone())?,
            begin: pool::begin_behind_pooler(settings.pooler, session).map(Arc::from),
            scarcity,
            findings: Findings::default(),
            opening: Arc::new(Semaphore::new(1)),
            acquire_timeout: settings.acquire_timeout,
            pinned: Idle::default(),
        })
    }

    /// Whether connections are currently scarce.
    pub(super) const fn scarcity(&self) -> &Scarcity {
        &self.scarcity
    }

    /// Results of the database checks.
    pub(super) const fn findings(&self) -> &Findings {
        &self.findings
    }

    pub(super) fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }

    /// Whether a session ends with each transaction.
    pub(super) fn is_behind_pooler(&self) -> bool {
        self.begin.is_some()
    }

    /// A connection for the statements of one caller; see [`Session`].
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        if self.is_behind_pooler() {
            self.begin().await.map(Session::Transaction)
        } else {
            self.acquire().await.map(Session::Plain)
        }
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        let connection = self.acquire().await?;
        // The text consists of constants only.
        let begin =
            self.begin.as_ref().map(|begin| sqlx::AssertSqlSafe(begin.to_string())).map(sqlx::SqlSafeStr::into_sql_str);
        Transaction::begin(MaybePoolConnection::PoolConnection(connection), begin).await
    }

    /// Closes connections: those that have been unused for a while, and all idle ones while
    /// connections are scarce.
    pub(super) async fn tidy(&self) {
        self.pinned.release_unused(self.scarcity.holds());
        if !self.scarcity.holds() {
            return;
        }
        // A connection released a moment ago may still be returning to the pool; the next round
        // finds it.
        for _ in 0..self.pool.size() {
            let Some(connection) = self.pool.try_acquire() else { return };
            // The connection is gone in either case.
            let _ = connection.close().await;
        }
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        if self.scarcity.holds() { self.acquire_scarce().await } else { self.pool.acquire().await }
    }

    /// Opens a connection or takes one that another caller releases, whichever comes first.
    async fn acquire_scarce(&self) -> Result<PoolConnection<Postgres>, Error> {
        let opened = async {
            let _turn = self.opening.acquire().await.map_err(|_| Error::PoolClosed)?;
            self.pool.acquire().await
        };
        let either = async {
            tokio::select! {
                biased;
                connection = self.released_connection() => Ok(connection),
                opened = opened => opened,
            }
        };
        timeout(self.acquire_timeout, either).await.unwrap_or(Err(Error::PoolTimedOut))
    }

    async fn released_connection(&self) -> PoolConnection<Postgres> {
        loop {
            if let Some(mut connection) = self.pool.try_acquire() {
                if connection.ping().await.is_ok() {
                    return connection;
                }
                // Closing a dead connection makes room for another.
                let _ = connection.close().await;
            }
            sleep(LOOK).await;
        }
    }
}

/// Runs each statement on a pooled connection, as sqlx's own pool does.
impl<'p> Executor<'p> for &'p RolePool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let steps = async move {
            let mut session = self.session().await?;
            let steps: Vec<_> = session.fetch_many(query).try_collect().await?;
            session.finish().await?;
            Ok(stream::iter(steps.into_iter().map(Ok)))
        };
        steps.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            let mut session = self.session().await?;
            let row = session.fetch_optional(query).await?;
            session.finish().await?;
            Ok(row)
        }
        .boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        async move { self.session().await?.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        async move { self.session().await?.describe(sql).await }.boxed()
    }
}
