//! Leases jobs: the index proposes ids, the ledger decides what they are and whether they must
//! still run.
//!
//! Invariant: a [`Lease`] is returned only for a row that was waiting and due when it was read, so
//! a stale or wrong index never runs finished work again; and only if this process still held the
//! lease after that read, however late the response of the index or the ledger arrived: see
//! [`hold`].

mod hold;
mod resolve;
mod rows;
mod unanswered;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::{hold::Age, unanswered::Unanswered};
use crate::queue::{
    Grant, HeldLease, Index, IndexState, LeaseToken, Priority, Settlement, Shard, Subscription, Welcome,
    index::{FetchedIds, LeasedId, Offer},
};
use crate::{
    db::{Kept, SystemDb},
    tenancy::TenantId,
};

/// Pinned connections for reading: a worker's fetcher needs one all the time.
const READERS: usize = 1;

/// A job that this process may run until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The job's id.
    pub id: Uuid,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// The shard it waited in, where the lease is renewed and settled.
    pub shard: Shard,
    /// The job kind.
    pub kind: String,
    /// Its arguments.
    pub args: Box<RawValue>,
    /// Number of this run, from 1; the fencing token of its finish.
    pub attempt: i32,
    /// Runs that failed so far.
    pub failures: i16,
    /// Runs so far that ended with an expired lease (crashes).
    pub crashes: i16,
    /// Failures after which the job is discarded.
    pub max_attempts: i16,
    /// Its priority among the tenant's jobs.
    pub priority: Priority,
    /// The batch that it belongs to or completes.
    pub batch_id: Option<Uuid>,
    /// When it became eligible to run.
    pub run_at: DateTime<Utc>,
    /// Follow-up flags: see [`crate::queue::ledger::relations::hooks`].
    pub hooks: i16,
    /// Version of the arguments' format.
    pub args_version: i16,
    /// Proves to the index that this process holds the lease.
    pub token: LeaseToken,
    /// Until then the lease is certainly held, by the monotonic clock: see [`Lease::is_young`].
    pub sure_until: Instant,
    /// Duration of the lease after a renewal.
    pub lasts: Duration,
}

impl Lease {
    /// The lease for a renewal or assertion, with how long its handler has been running.
    pub const fn held(&self, held_for: Duration) -> HeldLease {
        HeldLease { id: self.id, token: self.token, tenant: self.tenant, attempt: self.attempt, held_for }
    }

    /// The settlement that releases the job as if it had not been fetched.
    pub fn release(&self) -> Settlement {
        Settlement {
            id: self.id,
            token: self.token,
            ran: None,
            again: Some((self.run_at.timestamp_millis(), self.priority)),
        }
    }
}

/// The result of a fetch.
#[derive(Debug)]
pub struct Fetched {
    /// Whether the index can be trusted; if not, there are no leases.
    pub state: IndexState,
    /// Jobs to run.
    pub leases: Vec<Lease>,
    /// Number of ids that the index proposed: more than the leases if some were final or not due.
    pub taken: usize,
    /// Time until the next job within the look-ahead is due, or until the next tenant may start
    /// more.
    pub next: Option<Duration>,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Redis did not answer.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// PostgreSQL did not answer; the leases were released.
    #[error("ledger: {0}")]
    Ledger(Arc<sqlx::Error>),
}

/// Leases jobs of queues.
#[derive(Clone)]
pub struct Consumer {
    db: SystemDb,
    connections: Kept,
    index: Index,
    lease: Duration,
    unanswered: Unanswered,
    /// Receives direct dispatches; `None` if fetches set no ready marks.
    offering: Option<Subscription>,
}

/// Ids that one call of the index leased, with their token.
type Leased = Result<(LeaseToken, FetchedIds), redis::RedisError>;

/// Jobs proposed by the index, before the ledger is read. Their leases are not renewed meanwhile.
#[derive(Debug)]
pub struct Proposed {
    answers: Vec<(Shard, Leased)>,
    age: Age,
}

impl Proposed {
    /// Adds to its age, as if its messages had been in transit for that long.
    #[must_use]
    pub fn delayed(self, by: Duration) -> Self {
        Self { age: self.age.more(by), ..self }
    }
}

impl Consumer {
    /// A consumer whose leases last `lease` unless they are renewed.
    pub fn new(db: SystemDb, index: Index, lease: Duration) -> Self {
        Self {
            connections: Kept::new(&db, READERS),
            db,
            index,
            lease,
            unanswered: Unanswered::default(),
            offering: None,
        }
    }

    /// Sets a ready mark wherever a fetch returns fewer jobs than were wanted.
    #[must_use]
    pub fn offering(self, subscription: Subscription) -> Self {
        Self { offering: Some(subscription), ..self }
    }

    /// Leases up to `wanted` jobs of a shard in fair order.
    pub async fn fetch(&self, shard: &Shard, wanted: usize) -> Result<Fetched, FetchError> {
        let mut answers = self.fetch_from(&[(shard, wanted)], Welcome::Next).await;
        answers.pop().expect("one result per shard")
    }

    /// Leases jobs of several shards, up to the given number of each. The shards are queried
    /// concurrently, the ledger once for all. Returns one result per shard, in the same order.
    pub async fn fetch_from(&self, wishes: &[(&Shard, usize)], welcome: Welcome) -> Vec<Result<Fetched, FetchError>> {
        let proposed = self.propose(wishes, welcome).await;
        self.resolve(proposed).await
    }

    /// The first half of [`Self::fetch_from`]: leases jobs in the index.
    pub async fn propose(&self, wishes: &[(&Shard, usize)], welcome: Welcome) -> Proposed {
        let (subscription, age) = (self.offering.as_ref().and_then(Subscription::name), Age::default());
        let ask = async |&(shard, wanted): &(&Shard, usize)| {
            let token = LeaseToken::random();
            let offer = subscription.as_deref().map(|subscription| Offer { subscription, token: LeaseToken::random() });
            let fetched = self.index.fetch(shard, wanted, self.lease, token, welcome, offer).await;
            match &fetched {
                Ok(_) => self.recover(shard),
                Err(_) => self.unanswered.note(shard, [token]),
            }
            Ok((token, fetched?))
        };
        let answers = join_all(wishes.iter().map(ask)).await;
        let answers = wishes.iter().map(|&(shard, _)| shard.clone()).zip(answers).collect();
        Proposed { answers, age }
    }

    /// Resolves directly dispatched jobs, as [`Self::fetch_from`] does fetched ones.
    pub async fn take(&self, grants: &[(Shard, Grant)]) -> Vec<Result<Fetched, FetchError>> {
        let answers = grants.iter().map(|(shard, grant)| (shard.clone(), Ok((grant.token, grant.as_fetched()))));
        let oldest = grants.iter().map(|(_, grant)| self.index.age(grant)).max().unwrap_or_default();
        self.resolve(Proposed { answers: answers.collect(), age: Age::default().more(oldest) }).await
    }

    /// Releases a directly dispatched job.
    pub async fn refuse(&self, shard: &Shard, grant: &Grant) -> Result<(), redis::RedisError> {
        self.index.settle(shard, &[grant.leased.release(grant.token)]).await
    }

    /// Reads the rows of the proposed jobs and decides which leases are kept.
    pub async fn resolve(&self, Proposed { answers, age }: Proposed) -> Vec<Result<Fetched, FetchError>> {
        let leased = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let ids: Vec<Uuid> = leased.flat_map(|(_, fetched)| &fetched.ids).map(|leased| leased.id).collect();
        let mut rows = self.read(&ids).await.map_err(Arc::new);
        let mut results = Vec::with_capacity(answers.len());
        for (shard, answer) in answers {
            results.push(match (answer, &mut rows) {
                (Ok((token, fetched)), Ok(rows)) => self.keep(&shard, token, fetched, rows, age).await,
                (Ok((token, fetched)), Err(error)) => Err(self.release(&shard, token, &fetched.ids, error).await),
                (Err(error), _) => Err(error.into()),
            });
        }
        results
    }

    async fn release(
        &self,
        shard: &Shard,
        token: LeaseToken,
        ids: &[LeasedId],
        reason: &Arc<sqlx::Error>,
    ) -> FetchError {
        let back: Vec<_> = ids.iter().map(|leased| leased.release(token)).collect();
        match self.index.settle(shard, &back).await {
            Ok(()) => FetchError::Ledger(Arc::clone(reason)),
            Err(error) => error.into(),
        }
    }
}

impl Grant {
    fn as_fetched(&self) -> FetchedIds {
        FetchedIds { state: IndexState::Ready, ids: vec![self.leased], next: None, now_ms: self.at_ms }
    }
}

impl LeasedId {
    const fn release(&self, token: LeaseToken) -> Settlement {
        self.unrun(token, Some((self.run_at_ms, self.priority)))
    }

    /// Ends the lease without a run.
    const fn unrun(&self, token: LeaseToken, again: Option<(i64, Priority)>) -> Settlement {
        Settlement { id: self.id, token, ran: None, again }
    }
}
