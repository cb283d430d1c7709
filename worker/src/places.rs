//! Fetch permits by queue share: each job of a share holds a permit from its lease until its run
//! has ended.
//!
//! Invariant: a permit counts until it is dropped, however its run ends. The drop wakes the fetch
//! loop if a share had to wait for a permit.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shared::queue::Shard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{capacity, listener::Wake};

/// The permit count of a queue share, shared with its permits.
pub struct Usage {
    held: AtomicUsize,
    /// Moving average of run time, in microseconds.
    average_us: AtomicU64,
    /// When the last permit was taken.
    worked_at: Mutex<Option<Instant>>,
    /// The share was not fetched from because it held too many permits.
    held_off: AtomicBool,
    wake: Arc<Wake>,
}

/// The permit counts of all shares, for tasks that lease outside of the fetch loop.
pub struct Usages(HashMap<Shard, Arc<Usage>>);

/// A fetch permit, held by a job of one share until it is dropped.
pub struct Place {
    usage: Arc<Usage>,
    /// `None` once another job may use the permit.
    permit: Option<OwnedSemaphorePermit>,
}

impl Usage {
    /// No permits held, and no run times known.
    pub const fn new(wake: Arc<Wake>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            average_us: AtomicU64::new(capacity::UNKNOWN),
            worked_at: Mutex::new(None),
            held_off: AtomicBool::new(false),
            wake,
        }
    }

    /// Number of permits held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Moving average of run time, in microseconds.
    pub fn average_us(&self) -> u64 {
        self.average_us.load(Ordering::Relaxed)
    }

    /// Whether a permit was taken within this time, regardless of how its job was leased.
    pub fn worked_within(&self, span: Duration) -> bool {
        self.worked_at().is_some_and(|worked_at| worked_at.elapsed() < span)
    }

    /// A panic while the lock is held leaves a valid instant.
    fn worked_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.worked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Permits left of `most`. If none is left, the next released permit wakes the fetch loop.
    pub fn room(&self, most: usize) -> usize {
        // Set the flag before reading the count, so a permit that is released in between wakes the
        // fetch loop.
        self.held_off.store(true, Ordering::SeqCst);
        let room = most.saturating_sub(self.held.load(Ordering::SeqCst));
        if room > 0 {
            self.held_off.store(false, Ordering::SeqCst);
        }
        room
    }
}

impl Usages {
    /// Permit counts of these shares.
    pub fn new(sources: impl Iterator<Item = (Shard, Arc<Usage>)>) -> Self {
        Self(sources.collect())
    }

    /// Takes a permit for a job of a share.
    pub fn place(&self, shard: &Shard, permit: OwnedSemaphorePermit) -> Place {
        Place::taken(self.0.get(shard).expect("notifications only arrive for known shards"), permit)
    }
}

impl Place {
    /// Takes a permit for a job of a share.
    pub fn taken(usage: &Arc<Usage>, permit: OwnedSemaphorePermit) -> Self {
        usage.held.fetch_add(1, Ordering::AcqRel);
        *usage.worked_at() = Some(Instant::now());
        Self { usage: Arc::clone(usage), permit: Some(permit) }
    }

    /// Whether the permit comes from this semaphore.
    pub fn is_among(&self, places: &Arc<Semaphore>) -> bool {
        self.permit.as_ref().is_some_and(|permit| Arc::ptr_eq(permit.semaphore(), places))
    }

    /// Lets another job use the permit, while this job still counts for its share.
    pub fn free(&mut self) {
        self.permit = None;
    }

    /// Records the run time of a job of the share.
    pub fn observe(&self, ran: Duration) {
        capacity::observe(&self.usage.average_us, ran);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Release the permit before waking the fetch loop.
        self.permit = None;
        self.usage.held.fetch_sub(1, Ordering::SeqCst);
        if self.usage.held_off.swap(false, Ordering::SeqCst) {
            self.usage.wake.again();
        }
        self.usage.wake.place_is_back();
    }
}
