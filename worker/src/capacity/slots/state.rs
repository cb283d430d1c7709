//! The state of the slots: who runs, who waits, and how often slots become free.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt as _};
use shared::tenancy::TenantId;

use super::TICK;

/// If slots become free less often than this, slots are reserved even while no newly active tenants
/// arrive.
pub(super) const SELDOM: Duration = Duration::from_millis(25);
/// Upper bound of the time between two ends of runs.
const LONGEST_BETWEEN: Duration = Duration::from_secs(1);

/// Counts of slots, and the waiting jobs.
pub(super) struct State<J> {
    pub(super) free: usize,
    /// Number of slots taken per tenant.
    running: HashMap<TenantId, usize>,
    waiting: HashMap<TenantId, Line<J>>,
    /// The tenants in `waiting`, ordered by running jobs, then by waiting time (longest first).
    order: BTreeSet<(usize, u64, TenantId)>,
    lines: u64,
    pub(super) starts: f64,
    pub(super) counted_at: Instant,
    /// When a tenant without running jobs last took a slot while other tenants had running jobs.
    pub(super) newly_active_at: Option<Instant>,
    /// When the last run ended, and the moving average of the time between two ends while all slots
    /// are taken. The end of a run beside free slots does not show how soon a slot becomes free
    /// once all are taken, perhaps by other jobs.
    pub(super) ended_at: Instant,
    pub(super) between_ends: Duration,
    /// Until when the free slots are held back.
    pub(super) held_back_until: Option<Instant>,
}

/// The waiting jobs of one tenant, each with the time since which it waits.
struct Line<J> {
    since: u64,
    jobs: VecDeque<(Instant, J)>,
}

impl<J> State<J> {
    /// `count` free slots, and no jobs.
    pub(super) fn new(count: usize) -> Self {
        Self {
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
        }
    }

    /// The tenant whose job is next.
    pub(super) fn first(&self) -> Option<TenantId> {
        self.order.first().map(|&(_, _, tenant)| tenant)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn runs(&self, tenant: TenantId) -> usize {
        self.running.get(&tenant).copied().unwrap_or(0)
    }

    /// Adds a job to its tenant's queue.
    pub(super) fn join(&mut self, tenant: TenantId, job: J, now: Instant) {
        let running = self.runs(tenant);
        let line = self.waiting.entry(tenant).or_insert_with(|| {
            self.lines += 1;
            self.order.insert((running, self.lines, tenant));
            Line { since: self.lines, jobs: VecDeque::new() }
        });
        line.jobs.push_back((now, job));
    }

    /// Removes the first job of a tenant's queue.
    pub(super) fn leave(&mut self, tenant: TenantId) -> Option<J> {
        let running = self.runs(tenant);
        let line = self.waiting.get_mut(&tenant)?;
        let (job, since) = (line.jobs.pop_front(), line.since);
        if line.jobs.is_empty() {
            self.waiting.remove(&tenant);
            self.order.remove(&(running, since, tenant));
        }
        job.map(|(_, job)| job)
    }

    /// Removes and returns the first jobs of each tenant's queue while `is_out` is true for the time
    /// since which they wait.
    pub(super) fn take_out(&mut self, is_out: impl Fn(Instant) -> bool) -> Vec<J> {
        let mut out = Vec::new();
        let tenants: Vec<_> = self.waiting.keys().copied().collect();
        for tenant in tenants {
            while self.waiting.get(&tenant).and_then(|line| line.jobs.front()).is_some_and(|(since, _)| is_out(*since))
            {
                out.extend(self.leave(tenant));
            }
        }
        out
    }

    pub(super) fn start(&mut self, tenant: TenantId, now: Instant) {
        if self.runs(tenant) == 0 && !self.running.is_empty() {
            self.newly_active_at = Some(now);
        }
        self.free -= 1;
        self.count(tenant, |running| running + 1);
    }

    pub(super) fn end(&mut self, tenant: TenantId) {
        self.free += 1;
        self.count(tenant, |running| running.saturating_sub(1));
    }

    pub(super) fn note_end(&mut self, was_full: bool, now: Instant) {
        let since = if was_full { now.duration_since(self.ended_at).min(LONGEST_BETWEEN) } else { LONGEST_BETWEEN };
        (self.between_ends, self.ended_at) = ((3 * self.between_ends + since) / 4, now);
    }

    /// Whether a job that finds all slots taken probably waits for long.
    pub(super) fn seldom_ends(&self, now: Instant) -> bool {
        self.between_ends.max(now.duration_since(self.ended_at)) > SELDOM
    }

    pub(super) fn count(&mut self, tenant: TenantId, change: impl FnOnce(usize) -> usize) {
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
    pub(super) fn may_start(&mut self, per_tick: f64, now: Instant) -> bool {
        let ticks = now.duration_since(self.counted_at).as_secs_f64() / TICK.as_secs_f64();
        (self.starts, self.counted_at) = ((self.starts + ticks * per_tick).min(per_tick), now);
        let due = self.starts >= 1.0;
        if due {
            self.starts -= 1.0;
        }
        due
    }
}
