//! The fetch loop: leases jobs for the free fetch permits, from all queue shares with work at the
//! same time.
//!
//! Invariant: a queue share in trouble (Redis or PostgreSQL unavailable, index being rebuilt) is
//! retried after a pause and does not delay the others. The fetcher ends only at the stop signal,
//! and leases nothing after that.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    queue::{
        IndexState, Welcome,
        dispatch::{Consumer, FetchError, Fetched, Lease},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Capacity, held_leases::HeldLeases, places::Place, quarantine::Quarantine, slots::Slots, sources::Sources,
    stall::Stall, start_cost::StartMeter,
};

/// Poll interval of an empty queue share that receives no notification.
const POLL: Duration = Duration::from_millis(500);
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);
/// Random delay between workers that wait for the same job to become due. Without it, the same
/// worker could always fetch first; one of a release that does not know the kind would requeue the
/// job each time.
const SPREAD_US: u64 = 2_000;

/// A leased job on its way to a slot.
pub struct Dispatch {
    /// The lease.
    pub lease: Arc<Lease>,
    /// Cancels the run.
    pub cancelled: CancellationToken,
    /// The fetch permit, held until the run has ended.
    pub place: Place,
}

/// The intake: records leased jobs and forwards them to the slots. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// The held leases.
    pub held_leases: HeldLeases,
    /// Sender towards the slots.
    pub dispatches: mpsc::Sender<Vec<Dispatch>>,
    /// Measures how long jobs waited.
    pub clock: Clock,
}

/// Leases jobs and forwards them to the slots.
pub struct Fetcher {
    /// Leases through index and ledger.
    pub consumer: Consumer,
    /// Divides the permits between the queue shares.
    pub sources: Sources,
    /// The fetch permits.
    pub capacity: Arc<Capacity>,
    /// Reserved permits for direct dispatch: see [`crate::grants`].
    pub reserved_permits: Arc<Semaphore>,
    /// Determines which tenants a fetch may serve.
    pub slots: Slots<Dispatch>,
    /// Records and forwards leases.
    pub desk: Desk,
    /// While a job is in quarantine, nothing is leased.
    pub quarantine: Quarantine,
    /// While the handlers' runtime is stalled, nothing is leased.
    pub stall: Stall,
    /// Measures the start cost at each fetch.
    pub starts: StartMeter,
}

impl Fetcher {
    /// Fetches until `stop`, and sleeps while there is nothing to do.
    pub async fn run(mut self, stop: CancellationToken) {
        let (quarantine, stall) = (self.quarantine.clone(), self.stall.clone());
        while !stop.is_cancelled() {
            if stop.run_until_cancelled(stall.over()).await.is_none() {
                return;
            }
            // Take no permits while there is nothing to fetch: direct dispatch uses them.
            if stop.run_until_cancelled(self.sources.ready()).await.is_none() {
                return;
            }
            let Some(places) = stop.run_until_cancelled(self.capacity.places()).await else { return };
            let Some(_door) = stop.run_until_cancelled(quarantine.none_under_way()).await else { return };
            self.round(places).await;
        }
    }

    /// Fetches from the queue shares that are due, and forwards the leased jobs.
    async fn round(&mut self, mut places: OwnedSemaphorePermit) {
        let welcome = self.welcome(&mut places);
        let shares = self.sources.share(places.num_permits());
        let wishes: Vec<_> = shares.iter().map(|&(at, wanted)| (self.sources.shard(at), wanted)).collect();
        let answers = self.consumer.fetch_from(&wishes, welcome).await;
        self.measure(&shares, &answers);
        for ((at, wanted), answer) in shares.into_iter().zip(answers) {
            match answer {
                Ok(fetched) => {
                    let again_in = again_in(&fetched, wanted);
                    if welcome == Welcome::NewlyActive {
                        self.sources.ask_again(at, again_in);
                    } else {
                        self.sources.answered(at, wanted, fetched.taken, again_in);
                    }
                    let (sources, desk) = (&self.sources, &self.desk);
                    let leased = fetched.leases.into_iter().map(|lease| {
                        let permit = places.split(1).expect("no more jobs are leased than there are permits");
                        (lease, sources.place(at, permit))
                    });
                    desk.dispatch(leased.collect()).await;
                }
                Err(error) => {
                    tracing::debug!(source = %self.sources.shard(at), %error, "fetch failed");
                    self.sources.answered(at, 0, 0, TROUBLE_PAUSE);
                }
            }
        }
    }
}

impl Fetcher {
    /// Which tenants the next fetch may serve; returns the permits of reserved slots to the budget.
    /// Any other job that was fetched for a slot reserved for newly active tenants would only wait
    /// for its release, and hold the permit that the newly active tenant needs.
    fn welcome(&self, places: &mut OwnedSemaphorePermit) -> Welcome {
        let left = self.slots.reserved_for_newly_active();
        if places.num_permits() <= left {
            self.sources.hold_off();
            // Permits that became free before the hold-off.
            self.capacity.add_free(places);
        }
        if places.num_permits() <= left {
            return Welcome::NewlyActive;
        }
        drop(places.split(left));
        if self.reserved_permits.available_permits() > 0 { Welcome::NextAndNewlyActive } else { Welcome::Next }
    }

    /// A queue share that returned all requested jobs probably has more.
    fn measure(&mut self, shares: &[(usize, usize)], answers: &[Result<Fetched, FetchError>]) {
        let taken = |answer: &Result<Fetched, _>| answer.as_ref().map_or(0, |fetched| fetched.taken);
        let left_waiting = shares.iter().zip(answers).any(|((_, wanted), answer)| taken(answer) >= *wanted);
        self.starts.fetched(answers.iter().map(taken).sum(), left_waiting);
    }
}

impl Desk {
    /// Records leases, each with its permit, and forwards them in one message: a message costs the
    /// same for one job as for many.
    pub async fn dispatch(&self, leased: Vec<(Lease, Place)>) {
        if leased.is_empty() {
            return;
        }
        let (leases, places): (Vec<_>, Vec<_>) =
            leased.into_iter().map(|(lease, place)| (Arc::new(lease), place)).unzip();
        let (cancelled, now) = (self.held_leases.enter(&leases), self.clock.now());
        let dispatches = leases.into_iter().zip(cancelled).zip(places).map(|((lease, cancelled), place)| {
            crate::metrics::started(&lease, now.signed_duration_since(lease.run_at).to_std().unwrap_or_default());
            Dispatch { lease, cancelled, place }
        });
        // The receiver is dropped only after all senders have stopped.
        let _ = self.dispatches.send(dispatches.collect()).await;
    }
}

/// When to fetch from a queue share again: at once if it returned all requested jobs, otherwise
/// when its response says so.
fn again_in(fetched: &Fetched, wanted: usize) -> Duration {
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
