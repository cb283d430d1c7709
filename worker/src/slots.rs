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

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt as _};
use shared::tenancy::TenantId;
use tokio::{sync::Notify, time::timeout_at};

/// Period over which starts are counted.
const TICK: Duration = Duration::from_millis(1);
/// Slots may be filled this many times faster than jobs of the average length free them.
const START_RATE_FACTOR: f64 = 1.25;
/// One slot in this many is reserved for newly active tenants; none in a worker with fewer than
/// half as many slots.
const RESERVED_FOR_NEWLY_ACTIVE: usize = 20;
/// How long slots stay reserved after a newly active tenant took one.
const RECENT_WINDOW: Duration = Duration::from_secs(1);
/// If slots become free less often than this, slots are reserved even while no newly active tenants
/// arrive.
const SELDOM: Duration = Duration::from_millis(25);
/// Upper bound of the time between two ends of runs.
const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// The slots of a worker, and the jobs that wait for one. Cheap to clone.
pub struct Slots<J> {
    shared: Arc<Shared<J>>,
}

/// A slot, taken until it is dropped.
pub struct Slot<J> {
    shared: Arc<Shared<J>>,
    /// The tenant for which the slot counts: that of its current job or, before the first job, the
    /// one for which it was taken. `None` once the slot is released.
    tenant: Option<TenantId>,
    /// Whether the slot has had a job.
    begun: bool,
}

struct Shared<J> {
    count: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    state: Mutex<State<J>>,
    /// A slot became free, or the time at which to check again has changed.
    changed: Notify,
}

struct State<J> {
    free: usize,
    /// Number of slots taken per tenant.
    running: HashMap<TenantId, usize>,
    waiting: HashMap<TenantId, Line<J>>,
    /// The tenants in `waiting`, ordered by running jobs, then by waiting time (longest first).
    order: BTreeSet<(usize, u64, TenantId)>,
    lines: u64,
    starts: f64,
    counted_at: Instant,
    /// When a tenant without running jobs last took a slot while other tenants had running jobs.
    newly_active_at: Option<Instant>,
    /// When the last run ended, and the moving average of the time between two ends while all slots
    /// are taken. The end of a run beside free slots does not show how soon a slot becomes free
    /// once all are taken, perhaps by other jobs.
    ended_at: Instant,
    between_ends: Duration,
    /// Until when the free slots are held back.
    held_back_until: Option<Instant>,
}

/// The waiting jobs of one tenant, each with the time since which it waits.
struct Line<J> {
    since: u64,
    jobs: VecDeque<(Instant, J)>,
}

impl<J> Slots<J> {
    /// `count` slots, for jobs with this average run time.
    pub fn new(count: usize, average_us: Arc<AtomicU64>) -> Self {
        let state = State {
            free: count,
            running: HashMap::new(),
            waiting: HashMap::new(),
            order: BTreeSet::new(),
            lines: 0,
            starts: 0.0,
            counted_at: Instant::now(),
            newly_active_at: None,
            ended_at: Instant::now(),
            between_ends: LONGEST_BETWEEN,
            held_back_until: None,
        };
        Self { shared: Arc::new(Shared { count, average_us, state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Adds a job. If it returns a slot, the caller must see that [`Slot::next`] is called on it.
    pub fn enter(&self, tenant: TenantId, job: J) -> Option<Slot<J>> {
        let (mut state, now) = (self.shared.lock(), Instant::now());
        let at_once = state.free > 0
            && (state.runs(tenant) == 0 || state.waiting.is_empty() && self.shared.left(&state, now).is_none());
        state.join(tenant, job, now);
        if at_once {
            state.start(tenant, now);
            return Some(Slot::taken(&self.shared, tenant));
        }
        let tenant = self.shared.next(&mut state, now)?;
        Some(Slot::taken(&self.shared, tenant))
    }

    /// Waits until a slot may be filled that was released or was not filled at once.
    pub async fn due(&self) -> Slot<J> {
        loop {
            let held_back_until = {
                let (mut state, now) = (self.shared.lock(), Instant::now());
                state.held_back_until = match self.shared.judge(&mut state, now) {
                    Next::Is(tenant) => {
                        state.start(tenant, now);
                        return Slot::taken(&self.shared, tenant);
                    }
                    Next::IsHeldBack(until) => Some(until),
                    Next::Nobody => None,
                };
                state.held_back_until
            };
            match held_back_until {
                Some(until) => drop(timeout_at(until.into(), self.shared.changed.notified()).await),
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// Removes and returns all waiting jobs.
    pub fn take_out(&self) -> Vec<J> {
        self.take_out_while(|_| true)
    }

    /// Removes and returns the jobs that have waited for at least `longest`.
    pub fn take_out_after(&self, longest: Duration) -> Vec<J> {
        self.take_out_while(|since| since.elapsed() >= longest)
    }

    fn take_out_while(&self, is_out: impl Fn(Instant) -> bool) -> Vec<J> {
        let (mut state, mut out) = (self.shared.lock(), Vec::new());
        let tenants: Vec<_> = state.waiting.keys().copied().collect();
        for tenant in tenants {
            while state.waiting.get(&tenant).and_then(|line| line.jobs.front()).is_some_and(|(since, _)| is_out(*since))
            {
                out.extend(state.leave(tenant));
            }
        }
        out
    }

    /// Whether a tenant has most of the slots.
    pub fn has_most(&self, tenant: TenantId) -> bool {
        2 * self.shared.lock().runs(tenant) > self.shared.count
    }

    /// How many of the free slots are reserved for newly active tenants because slots rarely become
    /// free. Any other job fetched for them would wait for long.
    pub fn reserved_for_newly_active(&self) -> usize {
        let seldom_ends = self.shared.lock().seldom_ends(Instant::now());
        if seldom_ends { self.shared.left_at_most() } else { 0 }
    }

    /// Whether a tenant without running jobs would soon get a slot.
    pub fn are_soon_free(&self) -> bool {
        let state = self.shared.lock();
        state.free > 0 || !state.seldom_ends(Instant::now())
    }

    /// Number of slots taken, and of free slots.
    pub fn busy_and_free(&self) -> (usize, usize) {
        let free = self.shared.lock().free;
        (self.shared.count.saturating_sub(free), free)
    }
}

impl<J> Clone for Slots<J> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<J> Slot<J> {
    fn taken(shared: &Arc<Shared<J>>, tenant: TenantId) -> Self {
        Self { shared: Arc::clone(shared), tenant: Some(tenant), begun: false }
    }
}

impl<J> Iterator for Slot<J> {
    type Item = J;

    /// The next job to run, once the previous one has ended. `None` releases the slot: no job
    /// waits, or the free slots are held back.
    fn next(&mut self) -> Option<J> {
        let (mut state, now) = (self.shared.lock(), Instant::now());
        state.end(self.tenant.take()?);
        let tenant = if self.begun {
            let was_full = state.free <= self.shared.left_at_most() + 1;
            state.note_end(was_full, now);
            self.shared.next(&mut state, now)?
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
            let mut state = self.shared.lock();
            state.end(tenant);
            if state.first().is_some() {
                self.shared.changed.notify_one();
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
    Nobody,
}

impl<J> Shared<J> {
    /// A panic while the lock is held leaves consistent counts.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free slot for the tenant that may fill it. If slots are held back, [`Slots::due`]
    /// returns one later.
    fn next(&self, state: &mut State<J>, now: Instant) -> Option<TenantId> {
        match self.judge(state, now) {
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
            Next::Nobody => {}
        }
        None
    }

    fn judge(&self, state: &mut State<J>, now: Instant) -> Next {
        let Some(tenant) = state.first().filter(|_| state.free > 0) else { return Next::Nobody };
        if state.runs(tenant) > 0 {
            if let Some(until) = self.left(state, now) {
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

    const fn left_at_most(&self) -> usize {
        (self.count + RESERVED_FOR_NEWLY_ACTIVE / 2) / RESERVED_FOR_NEWLY_ACTIVE
    }

    /// Until when the free slots are reserved for newly active tenants; `None` if they are not.
    fn left(&self, state: &State<J>, now: Instant) -> Option<Instant> {
        if state.free > self.left_at_most() {
            return None;
        }
        let since = if state.seldom_ends(now) { now } else { state.newly_active_at? };
        (now < since + RECENT_WINDOW).then_some(since + RECENT_WINDOW)
    }
}

impl<J> State<J> {
    /// The tenant whose job is next.
    fn first(&self) -> Option<TenantId> {
        self.order.first().map(|&(_, _, tenant)| tenant)
    }

    fn runs(&self, tenant: TenantId) -> usize {
        self.running.get(&tenant).copied().unwrap_or(0)
    }

    /// Adds a job to its tenant's queue.
    fn join(&mut self, tenant: TenantId, job: J, now: Instant) {
        let running = self.runs(tenant);
        let line = self.waiting.entry(tenant).or_insert_with(|| {
            self.lines += 1;
            self.order.insert((running, self.lines, tenant));
            Line { since: self.lines, jobs: VecDeque::new() }
        });
        line.jobs.push_back((now, job));
    }

    /// Removes the first job of a tenant's queue.
    fn leave(&mut self, tenant: TenantId) -> Option<J> {
        let running = self.runs(tenant);
        let line = self.waiting.get_mut(&tenant)?;
        let (job, since) = (line.jobs.pop_front(), line.since);
        if line.jobs.is_empty() {
            self.waiting.remove(&tenant);
            self.order.remove(&(running, since, tenant));
        }
        job.map(|(_, job)| job)
    }

    fn start(&mut self, tenant: TenantId, now: Instant) {
        if self.runs(tenant) == 0 && !self.running.is_empty() {
            self.newly_active_at = Some(now);
        }
        self.free -= 1;
        self.count(tenant, |running| running + 1);
    }

    fn end(&mut self, tenant: TenantId) {
        self.free += 1;
        self.count(tenant, |running| running.saturating_sub(1));
    }

    fn note_end(&mut self, was_full: bool, now: Instant) {
        let since = if was_full { now.duration_since(self.ended_at).min(LONGEST_BETWEEN) } else { LONGEST_BETWEEN };
        (self.between_ends, self.ended_at) = ((3 * self.between_ends + since) / 4, now);
    }

    /// Whether a job that finds all slots taken probably waits for long.
    fn seldom_ends(&self, now: Instant) -> bool {
        self.between_ends.max(now.duration_since(self.ended_at)) > SELDOM
    }

    fn count(&mut self, tenant: TenantId, change: impl FnOnce(usize) -> usize) {
        let before = self.runs(tenant);
        let after = change(before);
        if after == 0 {
            self.running.remove(&tenant);
        } else {
            self.running.insert(tenant, after);
        }
        if let Some(line) = self.waiting.get(&tenant) {
            self.order.remove(&(before, line.since, tenant));
            self.order.insert((after, line.since, tenant));
        }
    }

    /// Whether another start is due. If so, counts it.
    fn may_start(&mut self, per_tick: f64, now: Instant) -> bool {
        let ticks = now.duration_since(self.counted_at).as_secs_f64() / TICK.as_secs_f64();
        (self.starts, self.counted_at) = ((self.starts + ticks * per_tick).min(per_tick), now);
        let due = self.starts >= 1.0;
        if due {
            self.starts -= 1.0;
        }
        due
    }
}

#[cfg(test)]
mod tests;
