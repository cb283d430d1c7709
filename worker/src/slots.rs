//! The slots: how many jobs run at once, and whose job gets the next one.
//!
//! Invariant: a slot that comes free goes to the waiting tenant that has the fewest jobs running here, so a quiet tenant's job does not
//! queue behind what was fetched ahead for a busy one. A slot is free again however its run ends.
//!
//! Starts are spread: jobs of one length that began together would end together, and who comes in between would wait for all of them.
//! So slots that come free at once are not all filled at once, unless by tenants that have nothing running. And while such tenants come
//! beside others, one slot in twenty is left to them, so that they need not wait for the end of another's job either.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shared::tenancy::TenantId;
use tokio::{runtime::Handle, sync::oneshot};

/// Starts are counted over this time.
const TICK: Duration = Duration::from_millis(1);
/// Slots may be filled so many times faster than jobs of the average length free them.
const HASTE: f64 = 1.25;
/// One slot of so many is left to newcomers; of less than half as many, none.
const LEFT_TO_NEWCOMERS: usize = 20;
/// For so long after one came.
const LATELY: Duration = Duration::from_secs(1);

/// The slots of a worker.
pub struct Slots {
    shared: Arc<Shared>,
}

/// A slot, taken until it is dropped.
pub struct Slot {
    /// `None` if it was never handed over.
    shared: Option<Arc<Shared>>,
    tenant: TenantId,
}

struct Shared {
    count: usize,
    /// Moving average of run time, in microseconds.
    average_us: Arc<AtomicU64>,
    /// The runtime on which the slots were made: a slot may be given back on a thread that has no time for anything else.
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    free: usize,
    running: HashMap<TenantId, usize>,
    waiting: HashMap<TenantId, Line>,
    /// The tenants in `waiting`: those with the fewest running first, among equals who waits longest.
    order: BTreeSet<(usize, u64, TenantId)>,
    lines: u64,
    starts: f64,
    counted_at: Instant,
    /// When a tenant that had nothing running last took a slot beside others.
    newcomer_at: Option<Instant>,
    /// When somebody comes back to hand out what is free.
    comes_back_at: Option<Instant>,
}

/// Jobs of one tenant that wait for a slot.
struct Line {
    since: u64,
    jobs: VecDeque<oneshot::Sender<Slot>>,
}

impl Slots {
    /// So many slots, for jobs of this average length, which are handed out on the current runtime.
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
            comes_back_at: None,
        };
        let (runtime, state) = (Handle::current(), Mutex::new(state));
        Self { shared: Arc::new(Shared { count, average_us, runtime, state }) }
    }

    /// Waits for a slot.
    pub async fn take(&self, tenant: TenantId) -> Slot {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            let is_new = state.runs(tenant) == 0;
            if state.free > 0 && (is_new || state.waiting.is_empty() && self.shared.left(&state).is_none()) {
                state.start(tenant);
                return Slot { shared: Some(Arc::clone(&self.shared)), tenant };
            }
            state.join(tenant, sender);
            self.shared.hand_out(&mut state);
        }
        receiver.await.expect("whoever waits is not forgotten while the slots are there")
    }

    /// How many are taken, and how many are free.
    pub fn busy_and_free(&self) -> (usize, usize) {
        let free = self.shared.lock().free;
        (self.shared.count.saturating_sub(free), free)
    }
}

impl Shared {
    /// A panic while the lock is held leaves counts that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands free slots to those who wait.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while state.free > 0
            && let Some(&(running, _, tenant)) = state.order.first()
        {
            if !state.anybody_waits(tenant) {
                continue;
            }
            if running > 0 {
                if let Some(until) = self.left(state) {
                    return self.come_back(state, until);
                }
                if !state.may_start(self.starts_per_tick()) {
                    return self.come_back(state, Instant::now() + TICK);
                }
            }
            let Some(job) = state.leave(tenant) else { continue };
            if let Err(mut slot) = job.send(Slot { shared: Some(Arc::clone(self)), tenant }) {
                // It waits no more.
                slot.shared = None;
            } else {
                state.start(tenant);
            }
        }
    }

    /// At least one, so that an average of the past cannot stop what is shorter now.
    #[expect(clippy::cast_precision_loss, reason = "slots are thousands, and a length of 2^53 µs is endless anyway")]
    fn starts_per_tick(&self) -> f64 {
        let average_us = self.average_us.load(Ordering::Relaxed).max(1) as f64;
        (HASTE * self.count as f64 * TICK.as_secs_f64() * 1e6 / average_us).max(1.0)
    }

    /// Until when what is free is left to newcomers, if it is.
    fn left(&self, state: &State) -> Option<Instant> {
        let left = (self.count + LEFT_TO_NEWCOMERS / 2) / LEFT_TO_NEWCOMERS;
        let until = state.newcomer_at? + LATELY;
        (state.free <= left && Instant::now() < until).then_some(until)
    }

    fn come_back(self: &Arc<Self>, state: &mut State, at: Instant) {
        if state.comes_back_at.is_some_and(|earlier| earlier <= at) {
            return;
        }
        state.comes_back_at = Some(at);
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let mut state = shared.lock();
            if state.comes_back_at == Some(at) {
                state.comes_back_at = None;
            }
            shared.hand_out(&mut state);
        });
    }
}

impl State {
    fn runs(&self, tenant: TenantId) -> usize {
        self.running.get(&tenant).copied().unwrap_or(0)
    }

    /// Enters a job into its tenant's line.
    fn join(&mut self, tenant: TenantId, job: oneshot::Sender<Slot>) {
        let running = self.runs(tenant);
        let line = self.waiting.entry(tenant).or_insert_with(|| {
            self.lines += 1;
            self.order.insert((running, self.lines, tenant));
            Line { since: self.lines, jobs: VecDeque::new() }
        });
        line.jobs.push_back(job);
    }

    /// Takes the first job out of a tenant's line.
    fn leave(&mut self, tenant: TenantId) -> Option<oneshot::Sender<Slot>> {
        let running = self.runs(tenant);
        let line = self.waiting.get_mut(&tenant)?;
        let (job, since) = (line.jobs.pop_front(), line.since);
        if line.jobs.is_empty() {
            self.waiting.remove(&tenant);
            self.order.remove(&(running, since, tenant));
        }
        job
    }

    /// Whether the head of a tenant's line still waits, after those who do not were taken out: they must not use up starts.
    fn anybody_waits(&mut self, tenant: TenantId) -> bool {
        while let Some(job) = self.waiting.get(&tenant).and_then(|line| line.jobs.front()) {
            if !job.is_closed() {
                return true;
            }
            self.leave(tenant);
        }
        false
    }

    fn start(&mut self, tenant: TenantId) {
        if self.runs(tenant) == 0 && !self.running.is_empty() {
            self.newcomer_at = Some(Instant::now());
        }
        self.free -= 1;
        self.count(tenant, |running| running + 1);
    }

    fn end(&mut self, tenant: TenantId) {
        self.free += 1;
        self.count(tenant, |running| running.saturating_sub(1));
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
    fn may_start(&mut self, per_tick: f64) -> bool {
        let now = Instant::now();
        let ticks = now.duration_since(self.counted_at).as_secs_f64() / TICK.as_secs_f64();
        (self.starts, self.counted_at) = ((self.starts + ticks * per_tick).min(per_tick), now);
        let due = self.starts >= 1.0;
        if due {
            self.starts -= 1.0;
        }
        due
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let mut state = shared.lock();
            state.end(self.tenant);
            shared.hand_out(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::FutureExt as _;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn slots(count: usize, average: Duration) -> Slots {
        Slots::new(count, Arc::new(AtomicU64::new(u64::try_from(average.as_micros()).unwrap())))
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn the_tenant_with_the_fewest_running_is_next_whoever_came_first() {
        let slots = slots(3, Duration::from_micros(1));
        let (busy, quiet) = (tenant(1), tenant(2));
        let held = [slots.take(busy).await, slots.take(busy).await, slots.take(busy).await];
        let (mut early, mut late) = (Box::pin(slots.take(busy)), Box::pin(slots.take(quiet)));
        assert!(early.as_mut().now_or_never().is_none() && late.as_mut().now_or_never().is_none());
        let [first, ..] = held;
        drop(first);
        let quiet = late.await;
        assert!(early.as_mut().now_or_never().is_none());
        drop(quiet);
        timeout(PATIENCE, early).await.expect("then it is the other's turn");
    }

    #[tokio::test]
    async fn who_waits_no_more_costs_no_slot() {
        let slots = slots(1, Duration::from_micros(1));
        let held = slots.take(tenant(1)).await;
        let mut asked = Box::pin(slots.take(tenant(1)));
        assert!(asked.as_mut().now_or_never().is_none());
        // Handed over, and never picked up.
        let mut given = Box::pin(slots.take(tenant(2)));
        assert!(given.as_mut().now_or_never().is_none());
        drop(asked);
        drop(held);
        drop(given);
        timeout(PATIENCE, slots.take(tenant(3))).await.expect("the slot is free");
        assert_eq!(slots.busy_and_free(), (0, 1));
    }

    /// Jobs of an hour start one a millisecond: those that were given back must not count.
    #[tokio::test]
    async fn who_waits_no_more_uses_up_no_start() {
        let (slots, busy) = (slots(2, Duration::from_hours(1)), tenant(1));
        let (_long, short) = (slots.take(busy).await, slots.take(busy).await);
        let mut gone: Vec<_> = (0..5_000).map(|_| Box::pin(slots.take(busy))).collect();
        assert!(gone.iter_mut().all(|job| job.as_mut().now_or_never().is_none()));
        drop(gone);
        drop(short);
        timeout(Duration::from_secs(1), slots.take(busy)).await.expect("the slot is not kept for those who left");
    }

    /// 20 slots and jobs of 5 ms are 4 starts a millisecond, so 5 at once at the most.
    #[tokio::test]
    async fn slots_that_come_free_together_are_filled_one_after_the_other() {
        let slots = slots(20, Duration::from_millis(5));
        let busy = tenant(1);
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(slots.take(busy).await);
        }
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(slots.take(busy))).collect();
        assert!(waiting.iter_mut().all(|job| job.as_mut().now_or_never().is_none()));
        let mut last = held.pop();
        drop(held);
        let started = slots.busy_and_free().0;
        assert!((1..=12).contains(&started), "{started} hold a slot");
        // A tenant with nothing running does not wait for that.
        assert!(slots.take(tenant(2)).now_or_never().is_some());
        drop(last.take());
        let all = futures::future::join_all(waiting);
        assert_eq!(timeout(PATIENCE, all).await.expect("in the end all start").len(), 20);
        assert_eq!(slots.busy_and_free(), (0, 20));
    }

    /// Who comes next finds a slot, until nobody has come for a while.
    #[tokio::test]
    async fn one_slot_of_twenty_is_left_to_newcomers_while_they_come() {
        let slots = slots(20, Duration::from_micros(1));
        let (busy, quiet) = (tenant(1), tenant(2));
        let mut held = Vec::new();
        for _ in 0..18 {
            held.push(slots.take(busy).await);
        }
        drop(slots.take(quiet).await);
        held.push(slots.take(busy).await);
        let mut last = Box::pin(slots.take(busy));
        assert!(last.as_mut().now_or_never().is_none(), "it is left");
        drop(slots.take(quiet).await);
        assert!(last.as_mut().now_or_never().is_none(), "it is left again");
        let came_at = Instant::now();
        timeout(PATIENCE, last).await.expect("nobody else came");
        assert!(came_at.elapsed() > LATELY / 2, "{:?}", came_at.elapsed());
    }

    #[tokio::test]
    async fn a_lone_tenant_gets_all_slots_and_few_slots_are_left_to_nobody() {
        let lone = slots(20, Duration::from_micros(1));
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(lone.take(tenant(1)).now_or_never().expect("a free slot"));
        }
        let few = slots(9, Duration::from_micros(1));
        held.push(few.take(tenant(1)).await);
        drop(few.take(tenant(2)).await);
        for _ in 0..8 {
            held.push(few.take(tenant(1)).now_or_never().expect("a free slot"));
        }
    }

    #[tokio::test]
    async fn an_average_of_the_past_does_not_stop_short_jobs() {
        let slots = slots(2, Duration::from_hours(1));
        let busy = tenant(1);
        let _other = slots.take(busy).await;
        let mut slot = slots.take(busy).await;
        for _ in 0..100 {
            let next = slots.take(busy);
            drop(slot);
            slot = timeout(PATIENCE, next).await.expect("one a millisecond at least");
        }
    }
}
