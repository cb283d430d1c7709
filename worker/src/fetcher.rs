//! Getting work: as much as there are slots for, when there is some, from each source in turn. A source is a queue, or each shard of one that is split.
//!
//! Invariant: a source in trouble (Redis or PostgreSQL away, index being rebuilt) makes the fetcher wait, never end, and never
//! spin. It ends only when it is told to stop, and then nothing more is leased.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::{
    clock::Clock,
    queue::{
        IndexState, Shard,
        consumer::{Consumer, Fetched, Lease},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{holdings::Holdings, last_chance::LastChances, listener::Wake};

/// Without a notice, an idle worker asks this often.
const POLL: Duration = Duration::from_millis(500);
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);
const MAX_FETCH: usize = 500;
/// Short jobs are fetched ahead, as many as the slots work off in this time, so that slots never wait for a round trip.
const AHEAD: Duration = Duration::from_millis(2);

/// A leased job on its way to a slot. The permit frees its place when the run has ended.
pub struct Dispatch {
    /// What was leased.
    pub lease: Lease,
    /// Cancels the run.
    pub cancelled: CancellationToken,
    /// Its place among what may be held.
    pub place: OwnedSemaphorePermit,
}

/// What the fetcher may hold: the slots, and more while jobs are short.
pub struct Capacity {
    places: Arc<Semaphore>,
    running: Semaphore,
    slots: usize,
    /// Moving average of run time, in microseconds.
    average_us: AtomicU64,
    ahead: std::sync::Mutex<usize>,
}

impl Capacity {
    /// Room for `slots` running jobs.
    pub fn new(slots: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(slots)),
            running: Semaphore::new(slots),
            slots,
            average_us: AtomicU64::new(u64::MAX),
            ahead: std::sync::Mutex::new(0),
        }
    }

    /// Waits for a slot; the run ends when the permit is dropped.
    pub async fn slot(&self) -> SemaphorePermit<'_> {
        self.running.acquire().await.expect("the slots stay open as long as the process")
    }

    /// How many slots have a job, and how many have none.
    pub fn busy_and_free(&self) -> (usize, usize) {
        let free = self.running.available_permits();
        (self.slots.saturating_sub(free), free)
    }

    /// Learns how long jobs take.
    pub fn observe(&self, ran: Duration) {
        let ran_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
        let average = self.average_us.load(Ordering::Relaxed);
        let next = if average == u64::MAX { ran_us } else { average - average / 16 + ran_us / 16 };
        self.average_us.store(next, Ordering::Relaxed);
    }

    /// Learns that a job waited for a slot in vain: the jobs that run now are at least this long, though none of them has ended.
    pub fn observe_wait(&self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.average_us.fetch_max(waited_us, Ordering::Relaxed);
    }

    /// Sets how many may be held beyond the slots, by what the slots work off in [`AHEAD`], and returns how many free places are
    /// worth a fetch: half of those, so that short jobs come in few large fetches, and a single slot where jobs are long.
    fn adjust(&self) -> u32 {
        let average_us = self.average_us.load(Ordering::Relaxed).max(1);
        let ahead_us = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
        let wanted = usize::try_from(self.slots as u64 * ahead_us / average_us).unwrap_or(MAX_FETCH).min(MAX_FETCH);
        let Ok(mut ahead) = self.ahead.lock() else { return 1 };
        if wanted > *ahead {
            self.places.add_permits(wanted - *ahead);
            *ahead = wanted;
        } else {
            *ahead -= self.places.forget_permits(*ahead - wanted);
        }
        u32::try_from(wanted / 2).unwrap_or(1).max(1)
    }
}

/// Leases jobs and sends them on to the slots.
pub struct Fetcher {
    /// Asks index and ledger.
    pub consumer: Consumer,
    /// All shards of the queues that this process serves.
    pub sources: Vec<Shard>,
    /// How much may be held.
    pub capacity: Arc<Capacity>,
    /// Where leases are entered.
    pub holdings: Holdings,
    /// Where leased jobs go.
    pub dispatches: mpsc::Sender<Dispatch>,
    /// Tells how long jobs waited.
    pub clock: Clock,
    /// Ends the sleep of an idle fetcher.
    pub wake: Arc<Wake>,
    /// While one is under way nothing is leased.
    pub last_chances: LastChances,
}

/// What a round over the sources found.
struct Round {
    fetched: usize,
    wait: Duration,
}

impl Fetcher {
    /// Fetches until `stop`, sleeping while there is nothing to do.
    pub async fn run(self, stop: CancellationToken) {
        let (mut turn, mut busy) = (0, vec![false; self.sources.len()]);
        while !stop.is_cancelled() {
            let Some(places) = stop.run_until_cancelled(self.places()).await else { return };
            let Some(door) = stop.run_until_cancelled(self.last_chances.none_under_way()).await else { return };
            let round = self.round(places, turn, &mut busy).await;
            drop(door);
            turn += 1;
            if round.fetched == 0
                && let Some(Some(source)) = stop.run_until_cancelled(self.idle(round.wait)).await
            {
                turn = source;
            }
        }
    }

    /// Waits until it is worth a round trip, then takes all places that are free.
    async fn places(&self) -> OwnedSemaphorePermit {
        let worth = self.capacity.adjust();
        let places = &self.capacity.places;
        // The semaphore is never closed.
        let taken = Arc::clone(places).acquire_many_owned(worth).await;
        let mut taken = taken.expect("the places stay open as long as the fetcher");
        let more = places.available_permits().min(MAX_FETCH - taken.num_permits());
        if let Ok(rest) = Arc::clone(places).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            taken.merge(rest);
        }
        taken
    }

    /// Asks the sources in turn, each time beginning with another. The places are split over those that had work the last
    /// time, so that none takes all of them from the others; what is left over goes to whoever has more.
    async fn round(&self, mut places: OwnedSemaphorePermit, turn: usize, busy: &mut [bool]) -> Round {
        let mut round = Round { fetched: 0, wait: POLL };
        let order: Vec<usize> = (0..self.sources.len()).map(|at| (turn + at) % self.sources.len()).collect();
        let mut has_more = Vec::new();
        for (position, &at) in order.iter().enumerate() {
            let others = order[position + 1..].iter().filter(|&&other| busy[other]).count();
            let wanted = places.num_permits().div_ceil(1 + others);
            if wanted == 0 {
                break;
            }
            let taken = self.ask(&self.sources[at], wanted, &mut places, &mut round).await;
            busy[at] = taken > 0;
            if taken > 0 && taken == wanted && others > 0 {
                has_more.push(at);
            }
        }
        for at in has_more {
            match places.num_permits() {
                0 => break,
                left => self.ask(&self.sources[at], left, &mut places, &mut round).await,
            };
        }
        round
    }

    /// Leases up to `wanted` jobs of one source, sends them on, and says how many ids the index gave.
    async fn ask(&self, source: &Shard, wanted: usize, places: &mut OwnedSemaphorePermit, round: &mut Round) -> usize {
        match self.consumer.fetch(source, wanted).await {
            Ok(fetched) => {
                round.wait = round.wait.min(wait_after(&fetched));
                round.fetched += fetched.taken;
                self.dispatch(fetched.leases, places).await;
                fetched.taken
            }
            Err(error) => {
                tracing::debug!(%source, %error, "nothing could be fetched");
                sleep(TROUBLE_PAUSE).await;
                0
            }
        }
    }

    async fn dispatch(&self, leases: Vec<Lease>, places: &mut OwnedSemaphorePermit) {
        for lease in leases {
            let cancelled = self.holdings.enter(&lease);
            let place = places.split(1).expect("no more is leased than there are places");
            let waited = self.clock.now().signed_duration_since(lease.run_at).to_std().unwrap_or_default();
            crate::metrics::started(&lease, waited);
            // The receiver is dropped after the fetcher has stopped.
            let _ = self.dispatches.send(Dispatch { lease, cancelled, place }).await;
        }
    }

    /// Until there may be work, the next job is due, or it is time to ask again. Returns the source to begin with, if it is known:
    /// a round trip to every other one before it would be felt.
    async fn idle(&self, wait: Duration) -> Option<usize> {
        let source = timeout(wait, self.wake.heard()).await.ok()??;
        self.sources.iter().position(|served| *served == source)
    }
}

fn wait_after(fetched: &Fetched) -> Duration {
    match fetched.state {
        IndexState::Ready => fetched.next.unwrap_or(POLL).max(Duration::from_millis(1)),
        // By now it is known what time it is there.
        IndexState::Late => Duration::from_millis(1),
        IndexState::Grace | IndexState::Stale => TROUBLE_PAUSE,
    }
}
