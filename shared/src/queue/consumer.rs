//! Leasing work: the index proposes ids, the ledger says what they are and whether they are still to be done.
//!
//! Invariant: a [`Lease`] is returned only for a row that was waiting and due when it was read, so an index that is old or
//! wrong can never run finished work again.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Grant, HeldLease, Index, IndexState, LeaseToken, Priority, Settlement, Shard, Subscription, expiry,
    index::{FetchedIds, LeasedId, Offer},
};
use crate::{
    db::{Kept, SystemDb},
    faults::{self, Point},
    tenancy::TenantId,
};

/// The clocks of Redis, which promotes jobs, and of PostgreSQL differ a little.
const TOLERANCE_MS: i64 = 1_000;
/// Connections that are kept for reading: a worker's fetcher needs one all the time.
const READERS: usize = 1;

/// A job that this process may run until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The job's id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it waited, and where the lease is settled and renewed.
    pub shard: Shard,
    /// What it does.
    pub kind: String,
    /// Its arguments.
    pub args: Box<RawValue>,
    /// Which run this is, from 1; the fencing token of its finish.
    pub attempt: i32,
    /// Runs that failed so far.
    pub failures: i16,
    /// Runs that cost a worker its life so far.
    pub crashes: i16,
    /// Failures after which it is discarded.
    pub max_attempts: i16,
    /// Its place among the tenant's jobs.
    pub priority: Priority,
    /// The batch that it belongs to or completes.
    pub batch_id: Option<Uuid>,
    /// When it became eligible.
    pub run_at: DateTime<Utc>,
    /// Who cares about its end: see [`super::ties::hooks`].
    pub hooks: i16,
    /// The form of its arguments.
    pub args_version: i16,
    /// Proves the lease to the index.
    pub token: LeaseToken,
}

impl Lease {
    /// Asserts that it is held, and that its handler has been running for so long.
    pub const fn held(&self, held_for: Duration) -> HeldLease {
        HeldLease { id: self.id, token: self.token, tenant: self.tenant, held_for }
    }

    /// Gives the job back as if it had not been fetched.
    pub fn hand_back(&self) -> Settlement {
        Settlement {
            id: self.id,
            token: self.token,
            ran: None,
            again: Some((self.run_at.timestamp_millis(), self.priority)),
        }
    }
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// Whether the index can be trusted; if not, there are no leases.
    pub state: IndexState,
    /// Jobs to run.
    pub leases: Vec<Lease>,
    /// How many ids the index gave: more than the leases if some were finished or not due.
    pub taken: usize,
    /// How long until the next job of the near future is due, or the next tenant may start more.
    pub next: Option<Duration>,
}

/// Why nothing could be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Redis did not answer.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// PostgreSQL did not answer; what was leased has been given back.
    #[error("ledger: {0}")]
    Ledger(Arc<sqlx::Error>),
    /// PostgreSQL answered when half of the leases' time was over; what was leased has been given back.
    #[error("ledger: it took too long to read the jobs")]
    TooLate,
}

/// Leases jobs of queues.
#[derive(Clone)]
pub struct Consumer {
    db: SystemDb,
    connections: Kept,
    index: Index,
    lease: Duration,
    /// Where is heard what comes of offers, if they are made.
    offering: Option<Subscription>,
}

/// Ids that one call of the index leased, and under which token.
type Leased = Result<(LeaseToken, FetchedIds), redis::RedisError>;

struct Row {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    args: Json<Box<RawValue>>,
    is_final: bool,
    priority: i16,
    attempt: i32,
    failures: i16,
    crashes: i16,
    max_attempts: i16,
    run_at: DateTime<Utc>,
    hooks: i16,
    args_version: i16,
    batch_id: Option<Uuid>,
    waits_for: i16,
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl Consumer {
    /// A consumer whose leases last `lease` unless they are renewed.
    pub fn new(db: SystemDb, index: Index, lease: Duration) -> Self {
        Self { connections: Kept::new(&db, READERS), db, index, lease, offering: None }
    }

    /// Offers to take another job wherever a fetch brings fewer than were wanted.
    #[must_use]
    pub fn offering(self, subscription: Subscription) -> Self {
        Self { offering: Some(subscription), ..self }
    }

    /// Leases up to `wanted` jobs of a shard in fair order.
    pub async fn fetch(&self, shard: &Shard, wanted: usize) -> Result<Fetched, FetchError> {
        let mut answers = self.fetch_from(&[(shard, wanted)], false).await;
        answers.pop().expect("an answer for each shard")
    }

    /// Leases jobs of several shards, up to so many of each; the shards are asked at the same time, the ledger once for all. An
    /// answer for each shard, in their order. `to_newcomers`: where all that was wanted is brought, the offer is made to tenants that
    /// have nothing waiting now.
    pub async fn fetch_from(&self, wishes: &[(&Shard, usize)], to_newcomers: bool) -> Vec<Result<Fetched, FetchError>> {
        let (subscription, asked) = (self.offering.as_ref().and_then(Subscription::name), Instant::now());
        let ask = async |&(shard, wanted): &(&Shard, usize)| {
            let token = LeaseToken::random();
            let offer = subscription.as_deref().map(|subscription| {
                let token = LeaseToken::random();
                Offer { subscription, token, to_newcomers }
            });
            Ok((token, self.index.fetch(shard, wanted, self.lease, token, offer).await?))
        };
        let answers = join_all(wishes.iter().map(ask)).await;
        let answers = wishes.iter().map(|&(shard, _)| shard).zip(answers).collect();
        self.read_and_judge(answers, || asked.elapsed()).await
    }

    /// Takes what was granted, as [`Self::fetch_from`] what was fetched.
    pub async fn take(&self, grants: &[(Shard, Grant)]) -> Vec<Result<Fetched, FetchError>> {
        let answers = grants.iter().map(|(shard, grant)| (shard, Ok((grant.token, grant.as_fetched())))).collect();
        let oldest = || grants.iter().map(|(_, grant)| self.index.age(grant)).max().unwrap_or_default();
        self.read_and_judge(answers, oldest).await
    }

    /// Gives back what was granted.
    pub async fn refuse(&self, shard: &Shard, grant: &Grant) -> Result<(), redis::RedisError> {
        self.index.settle(shard, &[grant.leased.hand_back(grant.token)]).await
    }

    /// `age`: since when some of them may be leased.
    async fn read_and_judge(
        &self,
        answers: Vec<(&Shard, Leased)>,
        age: impl Fn() -> Duration,
    ) -> Vec<Result<Fetched, FetchError>> {
        let leased = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let ids: Vec<Uuid> = leased.flat_map(|(_, fetched)| &fetched.ids).map(|leased| leased.id).collect();
        let mut rows = match self.read(&ids).await {
            // Nobody has renewed them meanwhile; too late, and they are another's before they run.
            Ok(_) if age() > self.lease / 2 => Err(None),
            rows => rows.map_err(|error| Some(Arc::new(error))),
        };
        let mut results = Vec::with_capacity(answers.len());
        for (shard, answer) in answers {
            results.push(match (answer, &mut rows) {
                (Ok((token, fetched)), Ok(rows)) => Ok(self.judge(shard, token, fetched, rows).await),
                (Ok((token, fetched)), Err(error)) => {
                    Err(self.hand_back(shard, token, &fetched.ids, error.as_ref()).await)
                }
                (Err(error), _) => Err(error.into()),
            });
        }
        results
    }

    /// Which of these runs, by id and attempt, the ledger no longer waits for: they were cancelled, or taken for dead.
    pub async fn unwanted(&self, ids: &[Uuid], attempts: &[i32]) -> Result<Vec<Uuid>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select i.id as "id!" from unnest($1::uuid[], $2::int4[]) as i (id, attempt)
               where not exists (select from jobs j where j.id = i.id and j.attempt = i.attempt
                                 and j.state not in ('completed', 'cancelled', 'discarded'))"#,
            ids,
            attempts
        )
        .fetch_all(self.db.pool())
        .await
    }

    async fn hand_back(
        &self,
        shard: &Shard,
        token: LeaseToken,
        ids: &[LeasedId],
        reason: Option<&Arc<sqlx::Error>>,
    ) -> FetchError {
        let back: Vec<_> = ids.iter().map(|leased| leased.hand_back(token)).collect();
        match self.index.settle(shard, &back).await {
            Ok(()) => reason.map_or(FetchError::TooLate, |error| FetchError::Ledger(Arc::clone(error))),
            Err(error) => error.into(),
        }
    }

    async fn read(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Row>, sqlx::Error> {
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashMap::new()) };
        faults::reach(Point::AfterLeaseBeforeRead).await?;
        let mut connection = self.connections.take().await?;
        // The bounds leave out partitions: of the list alone, each id would be looked for in each of them. What can be reckoned from a row is
        // reckoned here, because PostgreSQL takes longer for it than for the look-up.
        let rows = sqlx::query_as!(
            Row,
            r#"select id, tenant_id, kind, args as "args: Json<Box<RawValue>>",
                      state in ('completed', 'cancelled', 'discarded') as "is_final!", priority, attempt, failures, crashes, max_attempts,
                      run_at, hooks, args_version, batch_id, waits_for, expires_at, now() as "now!"
               from jobs where id = any($1) and id between $2 and $3"#,
            ids,
            first,
            last
        )
        .fetch_all(&mut *connection)
        .await?;
        self.connections.put(connection);
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }

    /// Keeps what is to be run now, in the order of the index, and settles the rest.
    async fn judge(
        &self,
        shard: &Shard,
        token: LeaseToken,
        fetched: FetchedIds,
        rows: &mut HashMap<Uuid, Row>,
    ) -> Fetched {
        let FetchedIds { state, ids, next, now_ms } = fetched;
        let (mut leases, mut rest, mut expired) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        for leased in &ids {
            match rows.remove(&leased.id) {
                // It waits for other jobs: the index should not know it yet.
                Some(row) if row.waits_for != 0 => rest.push(leased.unrun(token, None)),
                Some(row) if !row.is_final && row.is_expired() => {
                    expired.push(leased.id);
                    rest.push(leased.unrun(token, None));
                }
                Some(row) if !row.is_final && row.due_in_ms() <= TOLERANCE_MS => {
                    leases.push(row.into_lease(shard, token, leased.priority));
                }
                // By the clock that promotes it: by the other it would be due there at once, and come again and again.
                Some(row) if !row.is_final => {
                    rest.push(leased.unrun(token, Some((now_ms + row.due_in_ms(), leased.priority))));
                }
                _ => rest.push(leased.unrun(token, None)),
            }
        }
        if !rest.is_empty()
            && let Err(error) = self.index.settle(shard, &rest).await
        {
            // Their leases run out. Those of the others must not, so they are not given up with them.
            tracing::debug!(%shard, %error, "leases of jobs that are not to run could not be settled");
        }
        if !expired.is_empty() {
            let consumer = self.clone();
            // Not waited for: nobody renews the other leases before they are returned.
            tokio::spawn(async move { consumer.discard(&expired).await });
        }
        Fetched { state, leases, taken: ids.len(), next }
    }

    /// Their time is over, so they are not run. If the ledger cannot be told now, the scheduler's sweep does it.
    async fn discard(&self, expired: &[Uuid]) {
        match expiry::discard(&self.db, expired).await {
            Ok((_, aftermath)) => aftermath.announce(&self.index).await,
            Err(error) => tracing::debug!(jobs = expired.len(), %error, "expired jobs could not be discarded"),
        }
    }
}

impl Grant {
    fn as_fetched(&self) -> FetchedIds {
        FetchedIds { state: IndexState::Ready, ids: vec![self.leased], next: None, now_ms: self.at_ms }
    }
}

impl LeasedId {
    const fn hand_back(&self, token: LeaseToken) -> Settlement {
        self.unrun(token, Some((self.run_at_ms, self.priority)))
    }

    /// Ends the lease without a run.
    const fn unrun(&self, token: LeaseToken, again: Option<(i64, Priority)>) -> Settlement {
        Settlement { id: self.id, token, ran: None, again }
    }
}

impl Row {
    fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= self.now)
    }

    fn due_in_ms(&self) -> i64 {
        self.run_at.signed_duration_since(self.now).num_milliseconds()
    }

    fn into_lease(self, shard: &Shard, token: LeaseToken, fallback: Priority) -> Lease {
        Lease {
            id: self.id,
            tenant: TenantId::new(self.tenant_id),
            shard: shard.clone(),
            kind: self.kind,
            args: self.args.0,
            attempt: self.attempt,
            failures: self.failures,
            crashes: self.crashes,
            max_attempts: self.max_attempts,
            priority: Priority::new(self.priority).unwrap_or(fallback),
            run_at: self.run_at,
            hooks: self.hooks,
            batch_id: self.batch_id,
            args_version: self.args_version,
            token,
        }
    }
}
