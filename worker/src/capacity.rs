//! How much a worker may hold: its slots, and more while jobs are short.
//!
//! Invariant: a job that is held without a slot has one within about [`AHEAD`], as far as the jobs before it tell.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::queue::MAX_BATCH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{places::Place, slots::Slots};

/// The most that is fetched at once, and ahead: what one call gives. If more were asked for, a full answer would look like the end of
/// what waits.
pub const MAX_FETCH: usize = MAX_BATCH;
/// An average of nothing.
pub const UNKNOWN: u64 = u64::MAX;
/// Short jobs are fetched ahead, as many as the slots work off in this time, so that slots never wait for a round trip.
const AHEAD: Duration = Duration::from_millis(2);

/// How many jobs of this average run time (microseconds) so many slots work off in [`AHEAD`].
pub fn ahead(slots: usize, average_us: u64) -> usize {
    let ahead_us = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
    usize::try_from(slots as u64 * ahead_us / average_us.max(1)).unwrap_or(MAX_FETCH).min(MAX_FETCH)
}

/// Moves an average of run times (microseconds) on.
pub fn observe(average_us: &AtomicU64, ran: Duration) {
    let ran_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
    let average = average_us.load(Ordering::Relaxed);
    let next = if average == UNKNOWN { ran_us } else { average - average / 16 + ran_us / 16 };
    average_us.store(next, Ordering::Relaxed);
}

/// The places for what is held.
pub struct Capacity {
    places: Arc<Semaphore>,
    slots: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    ahead: Mutex<usize>,
}

impl Capacity {
    /// Room for `slots` running jobs.
    pub fn new(slots: usize) -> Self {
        let average_us = Arc::new(AtomicU64::new(UNKNOWN));
        Self { places: Arc::new(Semaphore::new(slots)), slots, average_us, ahead: Mutex::new(0) }
    }

    /// The slots, all free.
    pub fn slots<J>(&self) -> Slots<J> {
        Slots::new(self.slots, Arc::clone(&self.average_us))
    }

    /// Learns how long jobs take.
    pub fn observe(&self, ran: Duration) {
        observe(&self.average_us, ran);
    }

    /// Learns that a job waited for a slot in vain: the jobs that run now are at least this long, though none of them has ended.
    pub fn observe_wait(&self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.average_us.fetch_max(waited_us, Ordering::Relaxed);
    }

    /// Waits until so many places are free that they are worth a round trip, then takes all of them, as many as one fetch can fill.
    pub async fn places(&self) -> OwnedSemaphorePermit {
        let worth = self.adjust();
        let taken = Arc::clone(&self.places).acquire_many_owned(worth).await;
        // The semaphore is never closed.
        let mut taken = taken.expect("the places stay open as long as the fetcher");
        self.add_free(&mut taken);
        taken
    }

    /// Takes the places that are free besides, as many as one fetch can fill.
    pub fn add_free(&self, taken: &mut OwnedSemaphorePermit) {
        let more = self.places.available_permits().min(MAX_FETCH - taken.num_permits());
        if let Ok(rest) = Arc::clone(&self.places).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            taken.merge(rest);
        }
    }

    /// Takes a place if one is free.
    pub fn place_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whether it is one of these places, not one for a guest.
    pub fn has(&self, place: &Place) -> bool {
        place.is_among(&self.places)
    }

    /// Sets how many may be held beyond the slots, and returns how many free places are worth a fetch: half of those, so that short
    /// jobs come in few large fetches, and a single slot where jobs are long.
    fn adjust(&self) -> u32 {
        let wanted = ahead(self.slots, self.average_us.load(Ordering::Relaxed));
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
