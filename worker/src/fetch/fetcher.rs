//! The fetch loop: leases jobs for the free fetch permits, from all queue shares with work at the
//! same time.
//!
//! Invariant: a queue share in trouble (Redis or PostgreSQL unavailable, index being rebuilt) is
//! retried after a pause and does not delay the others. The fetcher ends only at the stop signal,
//! and leases nothing after that.

use std::time::Duration;

use shared::queue::{
    FetchScope, IndexState, StoreError,
    dispatch::{Consumer, Fetched},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{intake::Intake, queue_shares::QueueShares};
use crate::{capacity::start_cost::StartMeter, process::Process};

/// Poll interval of an empty queue share that receives no notification.
const POLL: Duration = Duration::from_millis(500);
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);
/// Random delay between workers that wait for the same job to become due. Without it, the same
/// worker could always fetch first; one of a release that does not know the kind would requeue the
/// job each time.
const SPREAD_US: u64 = 2_000;

/// Leases jobs and passes them to the intake.
pub(super) struct Fetcher {
    pub process: Process,
    /// Leases through index and ledger, and sets ready marks.
    pub consumer: Consumer,
    /// Divides the permits between the queue shares.
    pub shares: QueueShares,
    pub intake: Intake,
    /// Measures the start cost at each fetch.
    pub starts: StartMeter,
}

impl Fetcher {
    /// Fetches until the process stops, and sleeps while there is nothing to do.
    pub async fn run(mut self) {
        let process = self.process.clone();
        loop {
            // Take no permits while there is nothing to fetch: direct dispatch uses them.
            let ready = async {
                process.handlers.recovered().await;
                self.shares.ready().await;
                process.budget.permits().await
            };
            let Some(permits) = process.stop.run_until_cancelled(ready).await else { return };
            let Some(_may_lease) = process.may_lease().await else { return };
            self.round(permits).await;
        }
    }

    /// Fetches from the queue shares that are due, and passes on the leased jobs.
    async fn round(&mut self, mut permits: OwnedSemaphorePermit) {
        let scope = self.scope(&mut permits);
        let wanted = self.shares.divide(permits.num_permits());
        let shards: Vec<_> = wanted.iter().map(|&(at, wanted)| (self.shares.shard(at), wanted)).collect();
        let results = self.consumer.fetch_from(&shards, scope).await;
        self.measure(&wanted, &results);
        for ((at, wanted), result) in wanted.into_iter().zip(results) {
            match result {
                Ok(fetched) => {
                    let next_in = next_fetch_in(&fetched, wanted);
                    if scope == FetchScope::NewlyActive {
                        self.shares.fetch_again(at, next_in);
                    } else {
                        self.shares.fetched(at, wanted, fetched.taken, next_in);
                    }
                    // No more jobs are leased than there are permits.
                    let each = std::iter::from_fn(|| permits.split(1));
                    self.intake.accept(fetched.leases, each).await;
                }
                Err(error) => {
                    tracing::debug!(share = %self.shares.shard(at), %error, "fetch failed");
                    self.shares.fetched(at, 0, 0, TROUBLE_PAUSE);
                }
            }
        }
    }

    /// Which tenants the next fetch may serve; returns the permits of reserved slots to the budget.
    /// Any other job that was fetched for a slot reserved for newly active tenants would only wait
    /// for its release, and hold the permit that the newly active tenant needs.
    fn scope(&self, permits: &mut OwnedSemaphorePermit) -> FetchScope {
        let Process { slots, budget, .. } = &self.process;
        let reserved = slots.reserved_for_newly_active();
        if permits.num_permits() <= reserved {
            self.shares.fetch_all_at_next_release();
            // Permits that became free just before.
            budget.add_free(permits);
        }
        if permits.num_permits() <= reserved {
            return FetchScope::NewlyActive;
        }
        drop(permits.split(reserved));
        if budget.has_reserved() { FetchScope::NextAndNewlyActive } else { FetchScope::Next }
    }

    /// A queue share that returned all requested jobs probably has more.
    fn measure(&mut self, wanted: &[(usize, usize)], results: &[Result<Fetched, StoreError>]) {
        let taken = |result: &Result<Fetched, _>| result.as_ref().map_or(0, |fetched| fetched.taken);
        let left_waiting = wanted.iter().zip(results).any(|((_, wanted), result)| taken(result) >= *wanted);
        self.starts.fetched(results.iter().map(taken).sum(), left_waiting);
    }
}

/// When to fetch from a queue share again: at once if it returned all requested jobs, otherwise
/// when its response says so.
fn next_fetch_in(fetched: &Fetched, wanted: usize) -> Duration {
    match fetched.state {
        IndexState::Ready if fetched.taken >= wanted => Duration::ZERO,
        IndexState::Ready => {
            let spread = Duration::from_micros(rand::random_range(0..SPREAD_US));
            fetched.next.map_or(POLL, |next| next + spread).clamp(Duration::from_millis(1), POLL)
        }
        // The response has updated the estimate of Redis's clock.
        IndexState::Late => Duration::from_millis(1),
        IndexState::Grace | IndexState::Stale => TROUBLE_PAUSE,
    }
}
