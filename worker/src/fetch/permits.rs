//! Fetch permits by queue share: each job of a share holds a permit from its lease until its run
//! has ended.
//!
//! Invariant: a permit counts until it is dropped, however its run ends. The drop wakes the fetch
//! loop if a share had to wait for a permit.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use super::notifications::Notifications;
use crate::capacity::budget::{self, FetchBudget};

/// The permit count of a queue share, shared with its permits.
pub(super) struct ShareUsage {
    held: AtomicUsize,
    /// Moving average of run time, in microseconds.
    average_us: AtomicU64,
    /// When the last permit was taken.
    worked_at: Mutex<Option<Instant>>,
    /// The share was not fetched from because it held too many permits.
    awaits_release: AtomicBool,
    notifications: Arc<Notifications>,
}

/// A fetch permit, held by a job of one share until it is dropped.
pub struct FetchPermit {
    usage: Arc<ShareUsage>,
    /// `None` once another job may use the permit.
    permit: Option<OwnedSemaphorePermit>,
}

impl ShareUsage {
    /// No permits held, and no run times known.
    pub const fn new(notifications: Arc<Notifications>) -> Self {
        Self {
            held: AtomicUsize::new(0),
            average_us: AtomicU64::new(budget::UNKNOWN),
            worked_at: Mutex::new(None),
            awaits_release: AtomicBool::new(false),
            notifications,
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
        self.awaits_release.store(true, Ordering::SeqCst);
        let room = most.saturating_sub(self.held.load(Ordering::SeqCst));
        if room > 0 {
            self.awaits_release.store(false, Ordering::SeqCst);
        }
        room
    }
}

impl FetchPermit {
    /// Counts a job of a share, with its permit.
    pub(super) fn taken(usage: &Arc<ShareUsage>, permit: Option<OwnedSemaphorePermit>) -> Self {
        usage.held.fetch_add(1, Ordering::AcqRel);
        *usage.worked_at() = Some(Instant::now());
        Self { usage: Arc::clone(usage), permit }
    }

    /// Whether the permit is one of the budget, not a reserved one.
    pub fn is_of(&self, budget: &FetchBudget) -> bool {
        self.permit.as_ref().is_some_and(|permit| budget.owns(permit))
    }

    /// Lets another job use the permit, while this job still counts for its share.
    pub fn free(&mut self) {
        self.permit = None;
    }

    /// Records the run time of a job of the share.
    pub fn observe(&self, ran: Duration) {
        budget::observe(&self.usage.average_us, ran);
    }
}

impl Drop for FetchPermit {
    fn drop(&mut self) {
        // Release the permit before waking the fetch loop.
        self.permit = None;
        self.usage.held.fetch_sub(1, Ordering::SeqCst);
        if self.usage.awaits_release.swap(false, Ordering::SeqCst) {
            self.usage.notifications.wake();
        }
        self.usage.notifications.permit_released();
    }
}
