//! The slots: how many jobs run at the same time, and whose job starts next.
//!
//! Invariant: the next job to start belongs to the waiting tenant with the fewest running jobs in
//! this worker, so the job of a quiet tenant does not queue behind prefetched jobs of a busy one. A
//! slot becomes free again however its run ends.
//!
//! A slot does not run yet when it is taken: where handlers block their threads, slots wait for a
//! thread. So a slot is taken for a tenant, and [`Slot::next`] chooses the job once a thread is
//! available.
//!
//! Starts are paced: equal jobs started together end together, and a job that arrives in between
//! would wait for the whole batch. So slots that become free together are not filled all at once,
//! except by tenants without running jobs. And while such tenants keep arriving beside others, or
//! slots rarely become free, one slot in twenty is reserved for them, so that they do not wait for
//! the end of another tenant's job either.

mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shared::tenancy::TenantId;
use tokio::{sync::Notify, time::timeout_at};

use self::state::State;

/// Period over which starts are counted.
const TICK: Duration = Duration::from_millis(1);
/// Slots may be filled this many times faster than jobs of the average length free them.
const START_RATE_FACTOR: f64 = 1.25;
/// One slot in this many is reserved for newly active tenants; none in a worker with fewer than
/// half as many slots.
const RESERVED_FOR_NEWLY_ACTIVE: usize = 20;
/// How long slots stay reserved after a newly active tenant took one.
const RECENT_WINDOW: Duration = Duration::from_secs(1);

/// The slots of a worker, and the jobs that wait for one.
pub struct Slots<J> {
    count: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    state: Mutex<State<J>>,
    /// A slot became free, or the time at which to check again has changed.
    changed: Notify,
}

/// A slot, taken until it is dropped.
pub struct Slot<J> {
    slots: Arc<Slots<J>>,
    /// The tenant for which the slot counts: that of its current job or, before the first job, the
    /// one for which it was taken. `None` once the slot is released.
    tenant: Option<TenantId>,
    /// Whether the slot has had a job.
    begun: bool,
}

impl<J> Slots<J> {
    /// `count` slots, for jobs with this average run time.
    pub fn new(count: usize, average_us: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { count, average_us, state: Mutex::new(State::new(count)), changed: Notify::new() })
    }

    /// Adds a job. If it returns a slot, the caller must see that [`Slot::next`] is called on it.
    pub fn enter(self: &Arc<Self>, tenant: TenantId, job: J) -> Option<Slot<J>> {
        let (mut state, now) = (self.lock(), Instant::now());
        let at_once = state.free > 0
            && (state.runs(tenant) == 0 || !state.has_waiting() && self.reserved_until(&state, now).is_none());
        state.join(tenant, job, now);
        if at_once {
            state.start(tenant, now);
            return Some(Slot::taken(self, tenant));
        }
        let tenant = self.next(&mut state, now)?;
        Some(Slot::taken(self, tenant))
    }

    /// Waits until a slot may be filled that was released or was not filled at once.
    pub async fn due(self: &Arc<Self>) -> Slot<J> {
        loop {
            let held_back_until = {
                let (mut state, now) = (self.lock(), Instant::now());
                state.held_back_until = match self.decide(&mut state, now) {
                    Next::Is(tenant) => {
                        state.start(tenant, now);
                        return Slot::taken(self, tenant);
                    }
                    Next::IsHeldBack(until) => Some(until),
                    Next::None => None,
                };
                state.held_back_until
            };
            match held_back_until {
                Some(until) => drop(timeout_at(until.into(), self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    /// Removes and returns all waiting jobs.
    pub fn take_out(&self) -> Vec<J> {
        self.lock().take_out(|_| true)
    }

    /// Removes and returns the jobs that have waited for at least `longest`.
    pub fn take_out_after(&self, longest: Duration) -> Vec<J> {
        self.lock().take_out(|since| since.elapsed() >= longest)
    }

    /// Whether a tenant has most of the slots.
    pub fn has_most(&self, tenant: TenantId) -> bool {
        2 * self.lock().runs(tenant) > self.count
    }

    /// How many of the free slots are reserved for newly active tenants because slots rarely become
    /// free. Any other job fetched for them would wait for long.
    pub fn reserved_for_newly_active(&self) -> usize {
        let seldom_ends = self.lock().seldom_ends(Instant::now());
        if seldom_ends { self.reserved_at_most() } else { 0 }
    }

    /// Whether a tenant without running jobs would soon get a slot.
    pub fn are_soon_free(&self) -> bool {
        let state = self.lock();
        state.free > 0 || !state.seldom_ends(Instant::now())
    }

    /// Number of slots taken, and of free slots.
    pub fn busy_and_free(&self) -> (usize, usize) {
        let free = self.lock().free;
        (self.count.saturating_sub(free), free)
    }
}

impl<J> Slot<J> {
    fn taken(slots: &Arc<Slots<J>>, tenant: TenantId) -> Self {
        Self { slots: Arc::clone(slots), tenant: Some(tenant), begun: false }
    }
}

impl<J> Iterator for Slot<J> {
    type Item = J;

    /// The next job to run, once the previous one has ended. `None` releases the slot: no job
    /// waits, or the free slots are held back.
    fn next(&mut self) -> Option<J> {
        let (mut state, now) = (self.slots.lock(), Instant::now());
        state.end(self.tenant.take()?);
        let tenant = if self.begun {
            let was_full = state.free <= self.slots.reserved_at_most() + 1;
            state.note_end(was_full, now);
            self.slots.next(&mut state, now)?
        } else {
            // Whether the slot may be filled was decided when it was taken; another tenant may be
            // next by now.
            let next = state.first()?;
            state.start(next, now);
            next
        };
        (self.tenant, self.begun) = (Some(tenant), true);
        state.leave(tenant)
    }
}

impl<J> Drop for Slot<J> {
    fn drop(&mut self) {
        if let Some(tenant) = self.tenant {
            let mut state = self.slots.lock();
            state.end(tenant);
            if state.first().is_some() {
                self.slots.changed.notify_one();
            }
        }
    }
}

/// The decision on who may fill a slot.
enum Next {
    Is(TenantId),
    /// Free slots are held back until then.
    IsHeldBack(Instant),
    /// No job waits, or no slot is free.
    None,
}

impl<J> Slots<J> {
    /// A panic while the lock is held leaves consistent counts.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free slot for the tenant that may fill it. If slots are held back, [`Slots::due`]
    /// returns one later.
    fn next(&self, state: &mut State<J>, now: Instant) -> Option<TenantId> {
        match self.decide(state, now) {
            Next::Is(tenant) => {
                state.start(tenant, now);
                return Some(tenant);
            }
            Next::IsHeldBack(until) => {
                if state.held_back_until.is_none_or(|earlier| until < earlier) {
                    state.held_back_until = Some(until);
                    self.changed.notify_one();
                }
            }
            Next::None => {}
        }
        None
    }

    fn decide(&self, state: &mut State<J>, now: Instant) -> Next {
        let Some(tenant) = state.first().filter(|_| state.free > 0) else { return Next::None };
        if state.runs(tenant) > 0 {
            if let Some(until) = self.reserved_until(state, now) {
                return Next::IsHeldBack(until);
            }
            if !state.may_start(self.starts_per_tick(), now) {
                return Next::IsHeldBack(now + TICK);
            }
        }
        Next::Is(tenant)
    }

    /// At least one, so that an average of past long jobs cannot stop short jobs.
    #[expect(clippy::cast_precision_loss, reason = "slots are thousands, and run times stay below 2^53 µs (285 years)")]
    fn starts_per_tick(&self) -> f64 {
        let average_us = self.average_us.load(Ordering::Relaxed).max(1) as f64;
        (START_RATE_FACTOR * self.count as f64 * TICK.as_secs_f64() * 1e6 / average_us).max(1.0)
    }

    const fn reserved_at_most(&self) -> usize {
        (self.count + RESERVED_FOR_NEWLY_ACTIVE / 2) / RESERVED_FOR_NEWLY_ACTIVE
    }

    /// Until when the free slots are reserved for newly active tenants; `None` if they are not.
    fn reserved_until(&self, state: &State<J>, now: Instant) -> Option<Instant> {
        if state.free > self.reserved_at_most() {
            return None;
        }
        let since = if state.seldom_ends(now) { now } else { state.newly_active_at? };
        (now < since + RECENT_WINDOW).then_some(since + RECENT_WINDOW)
    }
}
