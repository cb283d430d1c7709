//! Leader election among N schedulers, with numbered terms.
//!
//! Invariant: two processes never both hold a valid term. A term is a row with an expiry on
//! PostgreSQL's clock. A takeover requires that this expiry has passed, and raises the term. Why a
//! former leader does no harm:
//!
//! 1. Everything that a leader writes to the ledger because it leads is written in a transaction
//!    that first locks the row `for share` at its own term ([`Term::hold`]). A takeover updates that
//!    row, so it waits for such transactions, and any later transaction of the former leader finds
//!    another term and does nothing. Ledger effects of two terms therefore never interleave.
//! 2. A leader that was frozen and resumes still takes its term for valid until it checks. Without
//!    the ledger it can only repeat index operations, which are harmless by design: a push of
//!    waiting jobs is idempotent, and a rebuild carries an epoch that was raised in the ledger under
//!    (1); the index refuses a lower epoch.
//! 3. Nothing depends on the clocks of the schedulers' machines, and their names need not differ:
//!    the holder is a random id.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::db::SystemDb;

const NAME: &str = "scheduler";

/// A period of leadership. It is valid until another process takes over; see [`Term::hold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    number: i64,
}

impl Term {
    /// Number of the term, counted from 1.
    pub const fn number(&self) -> i64 {
        self.number
    }

    /// Locks the term until the end of the transaction; `false` if the term is over.
    pub async fn hold(&self, transaction: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar!("select 1 from leadership where name = $1 and term = $2 for share", NAME, self.number)
            .fetch_optional(transaction)
            .await
            .map(|row| row.is_some())
    }
}

/// A process that may lead.
#[derive(Clone, Debug)]
pub struct Candidate {
    db: SystemDb,
    holder: String,
    ttl: Duration,
}

impl Candidate {
    /// A candidate whose terms expire `ttl` after their last renewal.
    pub fn new(db: SystemDb, id: Uuid, ttl: Duration) -> Self {
        Self { db, holder: id.to_string(), ttl }
    }

    /// Renews the term if this process leads, and takes over if no process leads; `None` while
    /// another process leads.
    pub async fn campaign(&self) -> Result<Option<Term>, sqlx::Error> {
        let number = sqlx::query_scalar!(
            "insert into leadership as l (name, term, holder, expires_at)
             values ($1, 1, $2, clock_timestamp() + make_interval(secs => $3))
             on conflict (name) do update set
               term = case when l.holder = excluded.holder and l.expires_at > clock_timestamp() then l.term else l.term + 1 end,
               holder = excluded.holder,
               expires_at = excluded.expires_at
             where l.holder = excluded.holder or l.expires_at <= clock_timestamp()
             returning term",
            NAME,
            self.holder,
            self.ttl.as_secs_f64()
        )
        .fetch_optional(self.db.pool())
        .await?;
        Ok(number.map(|number| Term { number }))
    }

    /// Expires the term, so that the next candidate can take over immediately.
    pub async fn resign(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update leadership set expires_at = clock_timestamp() where name = $1 and holder = $2",
            NAME,
            self.holder
        )
        .execute(self.db.pool())
        .await
        .map(drop)
    }
}
