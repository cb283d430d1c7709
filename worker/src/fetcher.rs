//! Getting work: as much as there are places for, when there is some, from all sources at once.
//!
//! Invariant: a source in trouble (Redis or PostgreSQL away, index being rebuilt) is asked again after a pause, and holds up no other. The
//! fetcher ends only when it is told to stop, and then nothing more is leased.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    queue::{
        IndexState, Welcome,
        consumer::{Consumer, FetchError, Fetched, Lease},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Capacity, holdings::Holdings, last_chance::LastChances, places::Place, slots::Slots, sources::Sources,
    stall::Stall, start_cost::StartMeter,
};

/// Without a notice, an empty source is asked this often.
const POLL: Duration = Duration::from_millis(500);
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);
/// Workers that wait for the same job to come due do not ask at the same instant, and it is not always the same one that asks first: that one
/// may be of a release that does not know the job, and would put it off each time.
const SPREAD_US: u64 = 2_000;

/// A leased job on its way to a slot.
pub struct Dispatch {
    /// What was leased.
    pub lease: Arc<Lease>,
    /// Cancels the run.
    pub cancelled: CancellationToken,
    /// Its place among what may be held, until the run has ended.
    pub place: Place,
}

/// Where leased jobs are entered and sent on. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// What this process holds.
    pub holdings: Holdings,
    /// Where leased jobs go.
    pub dispatches: mpsc::Sender<Vec<Dispatch>>,
    /// Tells how long jobs waited.
    pub clock: Clock,
}

/// Leases jobs and sends them on to the slots.
pub struct Fetcher {
    /// Asks index and ledger.
    pub consumer: Consumer,
    /// Whom to ask for how many.
    pub sources: Sources,
    /// How much may be held.
    pub capacity: Arc<Capacity>,
    /// Places beyond those, for what is granted: see [`crate::grants`].
    pub guests: Arc<Semaphore>,
    /// Tell for whom they are.
    pub slots: Slots<Dispatch>,
    /// Where leases are entered and sent on.
    pub desk: Desk,
    /// While one is under way nothing is leased.
    pub last_chances: LastChances,
    /// While it lasts nothing is leased either.
    pub stall: Stall,
    /// Learns from each fetch what a start costs.
    pub starts: StartMeter,
}

impl Fetcher {
    /// Fetches until `stop`, sleeping while there is nothing to do.
    pub async fn run(mut self, stop: CancellationToken) {
        let (last_chances, stall) = (self.last_chances.clone(), self.stall.clone());
        while !stop.is_cancelled() {
            if stop.run_until_cancelled(stall.over()).await.is_none() {
                return;
            }
            // Places are not held while there is nothing to ask for: what is granted takes them.
            if stop.run_until_cancelled(self.sources.ready()).await.is_none() {
                return;
            }
            let Some(places) = stop.run_until_cancelled(self.capacity.places()).await else { return };
            let Some(_door) = stop.run_until_cancelled(last_chances.none_under_way()).await else { return };
            self.round(places).await;
        }
    }

    /// Asks the sources that are worth it, and sends on what they give.
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
                    if welcome == Welcome::Newcomers {
                        self.sources.ask_again(at, again_in);
                    } else {
                        self.sources.answered(at, wanted, fetched.taken, again_in);
                    }
                    let (sources, desk) = (&self.sources, &self.desk);
                    let leased = fetched.leases.into_iter().map(|lease| {
                        let permit = places.split(1).expect("no more is leased than there are places");
                        (lease, sources.place(at, permit))
                    });
                    desk.dispatch(leased.collect()).await;
                }
                Err(error) => {
                    tracing::debug!(source = %self.sources.shard(at), %error, "nothing could be fetched");
                    self.sources.answered(at, 0, 0, TROUBLE_PAUSE);
                }
            }
        }
    }
}

impl Fetcher {
    /// For whom there are slots, keeping the places of those. What is fetched for a slot that is left to newcomers, and is no newcomer's, would
    /// wait until it is handed back, in the place that the newcomer needs.
    fn welcome(&self, places: &mut OwnedSemaphorePermit) -> Welcome {
        let left = self.slots.left_to_newcomers();
        if places.num_permits() <= left {
            self.sources.hold_off();
            // What came free before that.
            self.capacity.add_free(places);
        }
        if places.num_permits() <= left {
            return Welcome::Newcomers;
        }
        drop(places.split(left));
        if self.guests.available_permits() > 0 { Welcome::NextAndNewcomers } else { Welcome::Next }
    }

    /// What gave all that was wanted has likely more.
    fn measure(&mut self, shares: &[(usize, usize)], answers: &[Result<Fetched, FetchError>]) {
        let taken = |answer: &Result<Fetched, _>| answer.as_ref().map_or(0, |fetched| fetched.taken);
        let left_waiting = shares.iter().zip(answers).any(|((_, wanted), answer)| taken(answer) >= *wanted);
        self.starts.fetched(answers.iter().map(taken).sum(), left_waiting);
    }
}

impl Desk {
    /// Enters leases, each of which has its place, and sends them on to the slots together: the way there costs as much as for one.
    pub async fn dispatch(&self, leased: Vec<(Lease, Place)>) {
        if leased.is_empty() {
            return;
        }
        let (leases, places): (Vec<_>, Vec<_>) =
            leased.into_iter().map(|(lease, place)| (Arc::new(lease), place)).unzip();
        let (cancelled, now) = (self.holdings.enter(&leases), self.clock.now());
        let dispatches = leases.into_iter().zip(cancelled).zip(places).map(|((lease, cancelled), place)| {
            crate::metrics::started(&lease, now.signed_duration_since(lease.run_at).to_std().unwrap_or_default());
            Dispatch { lease, cancelled, place }
        });
        // The receiver is dropped after those who fetch have stopped.
        let _ = self.dispatches.send(dispatches.collect()).await;
    }
}

/// When a source is worth asking again: at once if it gave all that was wanted, otherwise when it says so.
fn again_in(fetched: &Fetched, wanted: usize) -> Duration {
    match fetched.state {
        IndexState::Ready if fetched.taken >= wanted => Duration::ZERO,
        IndexState::Ready => {
            let spread = Duration::from_micros(rand::random_range(0..SPREAD_US));
            fetched.next.map_or(POLL, |next| next + spread).clamp(Duration::from_millis(1), POLL)
        }
        // By now it is known what time it is there.
        IndexState::Late => Duration::from_millis(1),
        IndexState::Grace | IndexState::Stale => TROUBLE_PAUSE,
    }
}
