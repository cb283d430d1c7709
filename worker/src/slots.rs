//! The slots: how many jobs run at once, and whose job is next.
//!
//! Invariant: whenever a job can begin, it is one of the waiting tenant that has the fewest jobs running here, so a quiet tenant's job does
//! not queue behind what was fetched ahead for a busy one. A slot is free again however its run ends.
//!
//! Having a slot is not yet running: where handlers block their threads, slots wait for a thread. So a slot is taken for a tenant, but the job
//! is chosen only when a thread has come to it, in [`Slot::next`].
//!
//! Starts are spread: jobs of one length that began together would end together, and who comes in between would wait for all of them.
//! So slots that come free at once are not all filled at once, unless by tenants that have nothing running. And while such tenants come
//! beside others, or a slot seldom comes free, one in twenty is left to them, so that they need not wait for the end of another's job either.

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

/// Starts are counted over this time.
const TICK: Duration = Duration::from_millis(1);
/// Slots may be filled so many times faster than jobs of the average length free them.
const HASTE: f64 = 1.25;
/// One slot of so many is left to newcomers; of less than half as many, none.
const LEFT_TO_NEWCOMERS: usize = 20;
/// For so long after one came.
const LATELY: Duration = Duration::from_secs(1);
/// Slots that come free less often than this are worth leaving to newcomers also while none come.
const SELDOM: Duration = Duration::from_millis(25);
/// More than this between two ends is as good as for ever.
const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// The slots of a worker, and the jobs that wait for one. Cheap to clone.
pub struct Slots<J> {
    shared: Arc<Shared<J>>,
}

/// A slot, taken until it is dropped.
pub struct Slot<J> {
    shared: Arc<Shared<J>>,
    /// For whom it counts: the tenant of its job, before it has one that for which it was taken.
    /// `None` once it is given back.
    tenant: Option<TenantId>,
    /// Whether it has had a job.
    begun: bool,
}

struct Shared<J> {
    count: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    state: Mutex<State<J>>,
    /// A slot came free, or is to be looked at again at another time.
    changed: Notify,
}

struct State<J> {
    free: usize,
    /// How many slots are taken for each tenant.
    running: HashMap<TenantId, usize>,
    waiting: HashMap<TenantId, Line<J>>,
    /// The tenants in `waiting`: those with the fewest running first, among equals who waits longest.
    order: BTreeSet<(usize, u64, TenantId)>,
    lines: u64,
    starts: f64,
    counted_at: Instant,
    /// When a tenant that had nothing running last took a slot beside others.
    newcomer_at: Option<Instant>,
    /// When the last run ended, and the moving average of the time between two ends while the slots are taken: what ends beside free slots
    /// does not say how soon one comes free once all are taken, by other jobs perhaps.
    ended_at: Instant,
    between_ends: Duration,
    /// Until when what is free is held back.
    held_back_until: Option<Instant>,
}

/// Jobs of one tenant that wait for a slot, with the times since when.
struct Line<J> {
    since: u64,
    jobs: VecDeque<(Instant, J)>,
}

impl<J> Slots<J> {
    /// So many slots, for jobs of this average length.
    pub fn new(count: usize, average_us: Arc<AtomicU64>) -> Self {
        let state = State {
            free: count,
            running: HashMap::new(),
            waiting: HashMap::new(),
            order: BTreeSet::new(),
            lines: 0,
            starts: 0.0,
            counted_at: Instant::now(),
            newcomer_at: None,
            ended_at: Instant::now(),
            between_ends: LONGEST_BETWEEN,
            held_back_until: None,
        };
        Self { shared: Arc::new(Shared { count, average_us, state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Enters a job. If a slot may be filled for it now, the caller is to see that [`Slot::next`] is called for it.
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

    /// Waits until a slot that was not filled at once, or has been given back, may be filled.
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

    /// Takes out all jobs that wait.
    pub fn take_out(&self) -> Vec<J> {
        self.take_out_while(|_| true)
    }

    /// Takes out the jobs that have waited for so long.
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

    /// Whether a tenant has most of them.
    pub fn has_most(&self, tenant: TenantId) -> bool {
        2 * self.shared.lock().runs(tenant) > self.shared.count
    }

    /// How many of those that are free are left to newcomers because others seldom come free: any other's job would wait there for long.
    pub fn left_to_newcomers(&self) -> usize {
        let seldom_ends = self.shared.lock().seldom_ends(Instant::now());
        if seldom_ends { self.shared.left_at_most() } else { 0 }
    }

    /// Whether a tenant that has nothing running would find one soon.
    pub fn are_soon_free(&self) -> bool {
        let state = self.shared.lock();
        state.free > 0 || !state.seldom_ends(Instant::now())
    }

    /// How many are taken, and how many are free.
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

    /// The job that is to run now, once the one before has ended. `None` gives the slot back: nobody waits, or what is free is held back.
    fn next(&mut self) -> Option<J> {
        let (mut state, now) = (self.shared.lock(), Instant::now());
        state.end(self.tenant.take()?);
        let tenant = if self.begun {
            let was_full = state.free <= self.shared.left_at_most() + 1;
            state.note_end(was_full, now);
            self.shared.next(&mut state, now)?
        } else {
            // That it may be filled was judged when it was taken; by now another tenant may be next.
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

/// Who may fill a slot.
enum Next {
    Is(TenantId),
    /// What is free is held back until then.
    IsHeldBack(Instant),
    /// Nobody waits, or no slot is free.
    Nobody,
}

impl<J> Shared<J> {
    /// A panic while the lock is held leaves counts that are still whole.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free slot for whoever may fill it. If it is held back, [`Slots::due`] gives it later.
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

    /// At least one, so that an average of the past cannot stop what is shorter now.
    #[expect(clippy::cast_precision_loss, reason = "slots are thousands, and a length of 2^53 µs is endless anyway")]
    fn starts_per_tick(&self) -> f64 {
        let average_us = self.average_us.load(Ordering::Relaxed).max(1) as f64;
        (HASTE * self.count as f64 * TICK.as_secs_f64() * 1e6 / average_us).max(1.0)
    }

    const fn left_at_most(&self) -> usize {
        (self.count + LEFT_TO_NEWCOMERS / 2) / LEFT_TO_NEWCOMERS
    }

    /// Until when what is free is left to newcomers, if it is.
    fn left(&self, state: &State<J>, now: Instant) -> Option<Instant> {
        if state.free > self.left_at_most() {
            return None;
        }
        let since = if state.seldom_ends(now) { now } else { state.newcomer_at? };
        (now < since + LATELY).then_some(since + LATELY)
    }
}

impl<J> State<J> {
    /// Who is next.
    fn first(&self) -> Option<TenantId> {
        self.order.first().map(|&(_, _, tenant)| tenant)
    }

    fn runs(&self, tenant: TenantId) -> usize {
        self.running.get(&tenant).copied().unwrap_or(0)
    }

    /// Enters a job into its tenant's line.
    fn join(&mut self, tenant: TenantId, job: J, now: Instant) {
        let running = self.runs(tenant);
        let line = self.waiting.entry(tenant).or_insert_with(|| {
            self.lines += 1;
            self.order.insert((running, self.lines, tenant));
            Line { since: self.lines, jobs: VecDeque::new() }
        });
        line.jobs.push_back((now, job));
    }

    /// Takes the first job out of a tenant's line.
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
            self.newcomer_at = Some(now);
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

    /// Whether one who finds all slots taken likely waits for long.
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

    /// Whether another start is due, which then counts.
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
