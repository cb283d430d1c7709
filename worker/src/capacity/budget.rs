//! The fetch budget: how many leases a worker may hold. One per slot, and more while jobs are
//! short.
//!
//! Invariant: a job that is held without a slot gets one within about [`AHEAD`], as estimated from
//! the run times of previous jobs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::queue::MAX_BATCH;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::slots::Slots;

/// Upper bound of jobs per fetch and of jobs held beyond the slots: the most that one call returns.
/// With a larger request, a full response would look like the end of the backlog.
pub const MAX_FETCH: usize = MAX_BATCH;
/// Reserved permits of a worker.
const RESERVED_PERMITS: usize = 2;
/// An average without samples.
pub const UNKNOWN: u64 = u64::MAX;
/// Short jobs are prefetched, as many as the slots complete in this time, so that slots never wait
/// for a round trip.
const AHEAD: Duration = Duration::from_millis(2);

/// How many jobs of this average run time (microseconds) the slots complete in [`AHEAD`].
pub fn ahead(slots: usize, average_us: u64) -> usize {
    let ahead_us = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
    usize::try_from(slots as u64 * ahead_us / average_us.max(1)).unwrap_or(MAX_FETCH).min(MAX_FETCH)
}

/// Adds a run time to a moving average in microseconds.
pub fn observe(average_us: &AtomicU64, ran: Duration) {
    let ran_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
    let average = average_us.load(Ordering::Relaxed);
    let next = if average == UNKNOWN { ran_us } else { average - average / 16 + ran_us / 16 };
    average_us.store(next, Ordering::Relaxed);
}

/// The fetch permits of a worker.
pub struct FetchBudget {
    permits: Arc<Semaphore>,
    /// Permits in addition, for the first jobs of newly active tenants.
    reserved: Arc<Semaphore>,
    slots: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    ahead: Mutex<usize>,
}

impl FetchBudget {
    /// A budget for `slots` running jobs.
    pub fn new(slots: usize) -> Self {
        let average_us = Arc::new(AtomicU64::new(UNKNOWN));
        let [permits, reserved] = [slots, RESERVED_PERMITS].map(|count| Arc::new(Semaphore::new(count)));
        Self { permits, reserved, slots, average_us, ahead: Mutex::new(0) }
    }

    /// The slots, all free.
    pub fn slots<J>(&self) -> Arc<Slots<J>> {
        Slots::new(self.slots, Arc::clone(&self.average_us))
    }

    /// Records the run time of a job.
    pub fn observe(&self, ran: Duration) {
        observe(&self.average_us, ran);
    }

    /// Records that a job waited in vain for a slot: the current jobs run for at least `waited`,
    /// although none of them has ended.
    pub fn observe_wait(&self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.average_us.fetch_max(waited_us, Ordering::Relaxed);
    }

    /// Waits until enough permits are free to be worth a round trip, then takes all free permits,
    /// up to the size of one fetch.
    pub async fn permits(&self) -> OwnedSemaphorePermit {
        let worth = self.adjust();
        let taken = Arc::clone(&self.permits).acquire_many_owned(worth).await;
        // The semaphore is never closed.
        let mut taken = taken.expect("the semaphore stays open as long as the fetcher");
        self.add_free(&mut taken);
        taken
    }

    /// Adds the permits that are free by now, up to the size of one fetch.
    pub fn add_free(&self, taken: &mut OwnedSemaphorePermit) {
        let more = self.permits.available_permits().min(MAX_FETCH - taken.num_permits());
        if let Ok(rest) = Arc::clone(&self.permits).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            taken.merge(rest);
        }
    }

    /// Takes a permit if one is free.
    pub fn permit_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Takes a reserved permit if one is free.
    pub fn reserved_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reserved).try_acquire_owned().ok()
    }

    /// Takes a reserved permit as soon as one is free.
    pub async fn reserved(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.reserved).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Whether a reserved permit is free.
    pub fn has_reserved(&self) -> bool {
        self.reserved.available_permits() > 0
    }

    /// Whether this is a permit of the budget, not a reserved permit.
    pub fn owns(&self, permit: &OwnedSemaphorePermit) -> bool {
        Arc::ptr_eq(permit.semaphore(), &self.permits)
    }

    /// Adjusts how many jobs may be held beyond the slots, and returns how many free permits are
    /// worth a fetch. That is half of the prefetched jobs, so short jobs arrive in few large
    /// fetches, and a single permit where jobs are long.
    fn adjust(&self) -> u32 {
        let wanted = ahead(self.slots, self.average_us.load(Ordering::Relaxed));
        let Ok(mut ahead) = self.ahead.lock() else { return 1 };
        if wanted > *ahead {
            self.permits.add_permits(wanted - *ahead);
            *ahead = wanted;
        } else {
            *ahead -= self.permits.forget_permits(*ahead - wanted);
        }
        u32::try_from(wanted / 2).unwrap_or(1).max(1)
    }
}
