//! What each source holds: a place is taken for each of its jobs, from before it has a slot until its run has ended.
//!
//! Invariant: a place counts until it is dropped, however its run ends, and then wakes whoever was not asked for want of it.

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

/// What a source holds; its places know it too.
pub struct Usage {
    held: AtomicUsize,
    /// Moving average of run time, in microseconds.
    average_us: AtomicU64,
    /// When the last place was taken.
    worked_at: Mutex<Option<Instant>>,
    /// It was not asked because it held too much.
    held_off: AtomicBool,
    wake: Arc<Wake>,
}

/// What all sources hold, for those who lease beside the fetcher.
pub struct Usages(HashMap<Shard, Arc<Usage>>);

/// A place among what a worker may hold, taken by a job of one source until it is dropped.
pub struct Place {
    usage: Arc<Usage>,
    /// `None` once it is free for another.
    permit: Option<OwnedSemaphorePermit>,
}

impl Usage {
    /// Nothing is held, and nothing known of how long jobs take.
    pub const fn new(wake: Arc<Wake>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            average_us: AtomicU64::new(capacity::UNKNOWN),
            worked_at: Mutex::new(None),
            held_off: AtomicBool::new(false),
            wake,
        }
    }

    /// How many places are taken.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Moving average of run time, in microseconds.
    pub fn average_us(&self) -> u64 {
        self.average_us.load(Ordering::Relaxed)
    }

    /// Whether a place was taken so lately, by whatever way its job came.
    pub fn worked_within(&self, span: Duration) -> bool {
        self.worked_at().is_some_and(|worked_at| worked_at.elapsed() < span)
    }

    /// A panic while the lock is held leaves an instant that is still whole.
    fn worked_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.worked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places are left of `most`; without any, the next that is given back wakes.
    pub fn room(&self, most: usize) -> usize {
        // The mark first: a place that is given back after it wakes.
        self.held_off.store(true, Ordering::SeqCst);
        let room = most.saturating_sub(self.held.load(Ordering::SeqCst));
        if room > 0 {
            self.held_off.store(false, Ordering::SeqCst);
        }
        room
    }
}

impl Usages {
    /// Of these sources.
    pub fn new(sources: impl Iterator<Item = (Shard, Arc<Usage>)>) -> Self {
        Self(sources.collect())
    }

    /// Takes a place for a job of a source.
    pub fn place(&self, shard: &Shard, permit: OwnedSemaphorePermit) -> Place {
        Place::taken(self.0.get(shard).expect("only sources are listened to"), permit)
    }
}

impl Place {
    /// Takes one for a job of a source.
    pub fn taken(usage: &Arc<Usage>, permit: OwnedSemaphorePermit) -> Self {
        usage.held.fetch_add(1, Ordering::AcqRel);
        *usage.worked_at() = Some(Instant::now());
        Self { usage: Arc::clone(usage), permit: Some(permit) }
    }

    /// Whether it was taken from these.
    pub fn is_among(&self, places: &Arc<Semaphore>) -> bool {
        self.permit.as_ref().is_some_and(|permit| Arc::ptr_eq(permit.semaphore(), places))
    }

    /// Lets another have it, while the job counts on as one of its source.
    pub fn free(&mut self) {
        self.permit = None;
    }

    /// Learns how long the source's jobs take.
    pub fn observe(&self, ran: Duration) {
        capacity::observe(&self.usage.average_us, ran);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before anybody is woken.
        self.permit = None;
        self.usage.held.fetch_sub(1, Ordering::SeqCst);
        if self.usage.held_off.swap(false, Ordering::SeqCst) {
            self.usage.wake.again();
        }
        self.usage.wake.place_is_back();
    }
}
