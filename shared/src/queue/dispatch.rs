//! Leases jobs: the index proposes ids, the ledger decides what they are and whether they must
//! still run.
//!
//! Invariant: a [`Lease`] is returned only for a row that was waiting and due when it was read, so
//! a stale or wrong index never runs finished work again; and only if this process still held the
//! lease after that read, however late the response of the index or the ledger arrived: see
//! [`renewal`].

mod renewal;
mod resolve;
mod unanswered;

use std::time::Duration;

use futures::future::join_all;
use redis::RedisError;

use self::unanswered::Unanswered;
use crate::{
    db::{PinnedConnections, SystemDb},
    queue::{
        index::{
            Index,
            dispatch::{DirectDispatch, FetchScope, Proposed},
            notifications::Subscription,
            status::IndexState,
        },
        lease::{Lease, LeaseToken},
        shard::Shard,
        store_error::StoreError,
    },
};

/// Pinned connections for reading: a worker's fetcher needs one all the time.
const READERS: usize = 1;

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

/// Leases jobs of queues.
#[derive(Clone)]
pub struct Consumer {
    db: SystemDb,
    connections: PinnedConnections,
    index: Index,
    lease: Duration,
    unanswered: Unanswered,
    /// Receives direct dispatches; `None` if fetches set no ready marks.
    subscription: Option<Subscription>,
}

impl Consumer {
    /// A consumer whose leases last `lease` unless they are renewed.
    pub fn new(db: SystemDb, index: Index, lease: Duration) -> Self {
        let connections = PinnedConnections::new(&db, READERS);
        Self { connections, db, index, lease, unanswered: Unanswered::default(), subscription: None }
    }

    /// Sets a ready mark wherever a fetch returns fewer jobs than were wanted.
    #[must_use]
    pub fn with_ready_marks(self, subscription: Subscription) -> Self {
        Self { subscription: Some(subscription), ..self }
    }

    /// Leases up to `wanted` jobs of a shard in fair order.
    pub async fn fetch(&self, shard: &Shard, wanted: usize) -> Result<Fetched, StoreError> {
        let mut results = self.fetch_from(&[(shard, wanted)], FetchScope::Next).await;
        results.pop().expect("one result per shard")
    }

    /// Leases jobs of several shards, up to the given number of each. The shards are queried
    /// concurrently, the ledger once for all. Returns one result per shard, in the same order.
    pub async fn fetch_from(&self, wanted: &[(&Shard, usize)], scope: FetchScope) -> Vec<Result<Fetched, StoreError>> {
        let proposals = self.propose(wanted, scope).await;
        self.resolve(proposals).await
    }

    /// The first half of [`Self::fetch_from`]: leases jobs in the index. Their leases are not
    /// renewed before [`Self::resolve`], the second half.
    pub async fn propose(&self, wanted: &[(&Shard, usize)], scope: FetchScope) -> Vec<Result<Proposed, RedisError>> {
        let subscription = self.subscription.as_ref().and_then(Subscription::name);
        let fetch = async |&(shard, wanted): &(&Shard, usize)| {
            let token = LeaseToken::random();
            let mark = subscription.as_deref().map(|subscription| (subscription, LeaseToken::random()));
            let proposed = self.index.fetch(shard, wanted, self.lease, token, scope, mark).await;
            match &proposed {
                Ok(_) => self.recover(shard),
                Err(_) => self.unanswered.note(shard, [token]),
            }
            proposed
        };
        join_all(wanted.iter().map(fetch)).await
    }

    /// Resolves directly dispatched jobs, as [`Self::fetch_from`] does fetched ones.
    pub async fn accept(&self, dispatches: &[(Shard, DirectDispatch)]) -> Vec<Result<Fetched, StoreError>> {
        let proposed =
            |(shard, dispatch): &(Shard, DirectDispatch)| Ok(self.index.proposed(shard, dispatch, self.lease));
        self.resolve(dispatches.iter().map(proposed).collect()).await
    }

    /// Releases a directly dispatched job.
    pub async fn refuse(&self, shard: &Shard, dispatch: &DirectDispatch) -> Result<(), RedisError> {
        self.index.settle(shard, &[dispatch.leased.release()]).await
    }
}
