//! Measures the start cost: worker time per start in addition to the run time. It is the time for
//! which slots were free while jobs waited, divided by the number of jobs dispatched meanwhile.
//! With long runs no slot is free, and a start costs nothing. With very short runs, dispatch and
//! settlement bound the rate, and each start costs all slots for the time between two starts.
//! `fair_share.lua` charges the cost.
//!
//! Invariant: only time in which the index had more jobs than were requested counts. A slot is free
//! from the end of its run, even while the outcome waits to be written: a backlog of the ledger is
//! a cost of starts.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shared::queue::StartCost;

/// Shortest duration of a measurement.
const WINDOW: Duration = Duration::from_millis(100);
/// Upper bound of the start cost per slot, that of a worker with 500 starts a second. Beyond that,
/// a store is unavailable rather than busy.
const MOST_PER_SLOT: Duration = Duration::from_millis(2);

/// Total running time of all slots. Cheap to clone.
#[derive(Clone)]
pub struct RunningTime {
    state: Arc<Mutex<State>>,
}

struct State {
    running: u32,
    since: Instant,
    sum: Duration,
}

/// A run, until it is dropped.
pub struct Running<'a> {
    sum: &'a RunningTime,
    since: Instant,
}

impl RunningTime {
    /// A total of zero.
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State { running: 0, since: Instant::now(), sum: Duration::ZERO })) }
    }

    /// Starts a run.
    pub fn begin(&self) -> Running<'_> {
        let mut state = self.moved_on();
        state.running += 1;
        Running { sum: self, since: state.since }
    }

    /// The total up to now.
    pub fn sum(&self) -> Duration {
        self.moved_on().sum
    }

    /// A panic while the lock is held leaves consistent numbers.
    fn moved_on(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let State { running, since, sum } = &mut *state;
        *sum += now.saturating_duration_since(*since) * *running;
        *since = now;
        state
    }
}

impl Default for RunningTime {
    fn default() -> Self {
        Self::new()
    }
}

impl Running<'_> {
    /// Ends the run and returns its duration.
    pub fn end(self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.sum.moved_on();
        state.running = state.running.saturating_sub(1);
    }
}

/// Measures from one fetch to the next.
pub struct StartMeter {
    slots: u32,
    running: RunningTime,
    cost: StartCost,
    average: Duration,
    /// Whether the last fetch left jobs waiting, as far as its result shows.
    left_waiting: bool,
    fetched_at: Instant,
    run_until_then: Duration,
    window: Window,
}

/// Counts since the last update of the average.
struct Window {
    began: Instant,
    free: Duration,
    starts: u32,
}

impl StartMeter {
    /// A meter for a worker with this many slots, which writes its result to `cost`.
    pub fn new(slots: usize, running: RunningTime, cost: StartCost) -> Self {
        cost.set(Duration::ZERO);
        let now = Instant::now();
        Self {
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            run_until_then: running.sum(),
            running,
            cost,
            average: Duration::ZERO,
            left_waiting: false,
            fetched_at: now,
            window: Window { began: now, free: Duration::ZERO, starts: 0 },
        }
    }

    /// Records a fetch: how many jobs it returned, and whether it left others waiting.
    pub fn fetched(&mut self, jobs: usize, left_waiting: bool) {
        self.fetched_at(Instant::now(), self.running.sum(), jobs, left_waiting);
    }

    fn fetched_at(&mut self, now: Instant, run: Duration, jobs: usize, left_waiting: bool) {
        // A fetch without jobs may have failed, and its delay is no cost of starts.
        if self.left_waiting && jobs > 0 {
            let slot_time = now.saturating_duration_since(self.fetched_at) * self.slots;
            self.window.free += slot_time.saturating_sub(run.saturating_sub(self.run_until_then));
        }
        self.window.starts += u32::try_from(jobs).unwrap_or(u32::MAX);
        (self.left_waiting, self.fetched_at, self.run_until_then) = (left_waiting, now, run);
        if now.saturating_duration_since(self.window.began) >= WINDOW {
            let measured = (self.window.free / self.window.starts.max(1)).min(MOST_PER_SLOT * self.slots);
            self.average = (self.average + measured) / 2;
            self.cost.set(self.average);
            self.window = Window { began: now, free: Duration::ZERO, starts: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 20;
    const ROUND: Duration = Duration::from_millis(10);

    /// Simulates rounds of 10 ms that each return `jobs` jobs and add `run` to the total running
    /// time.
    fn measured(rounds: u32, jobs: usize, run: Duration, left_waiting: bool) -> Duration {
        let mut meter = StartMeter::new(SLOTS, RunningTime::new(), StartCost::default());
        for round in 1..=rounds {
            meter.fetched_at(meter.fetched_at + ROUND, run * round, jobs, left_waiting);
        }
        meter.average
    }

    fn is_about(measured: Duration, wanted: Duration) -> bool {
        measured >= wanted.mul_f64(0.9) && measured <= wanted.mul_f64(1.1)
    }

    /// 50 starts in 10 ms, in which 20 slots offer 200 ms: each start costs 4 ms of worker time if
    /// runs take no time.
    #[test]
    fn the_cost_of_a_start_is_the_idle_time_of_free_slots() {
        let cost = measured(300, 50, Duration::ZERO, true);
        assert!(is_about(cost, Duration::from_millis(4)), "{cost:?}");
        let cost = measured(300, 50, Duration::from_millis(150), true);
        assert!(is_about(cost, Duration::from_millis(1)), "{cost:?}");
    }

    #[test]
    fn a_start_costs_nothing_if_all_slots_are_busy_or_nothing_waits() {
        assert_eq!(measured(300, 2, ROUND * 20, true), Duration::ZERO);
        assert_eq!(measured(300, 2, Duration::ZERO, false), Duration::ZERO);
    }

    #[test]
    fn a_long_gap_between_fetches_is_not_counted_as_start_cost() {
        let mut meter = StartMeter::new(SLOTS, RunningTime::new(), StartCost::default());
        let began = meter.fetched_at;
        meter.fetched_at(began + ROUND, Duration::ZERO, 20, true);
        meter.fetched_at(began + Duration::from_mins(1), Duration::ZERO, 0, true);
        assert_eq!(meter.average, Duration::ZERO);
        // Nor more than the upper bound if the next fetch returns a job.
        meter.fetched_at(began + Duration::from_mins(2), Duration::ZERO, 1, true);
        assert_eq!(meter.average, MOST_PER_SLOT * 20 / 2);
    }

    #[test]
    fn running_time_is_summed_up_over_runs() {
        let running = RunningTime::new();
        let before = running.sum();
        let (one, other) = (running.begin(), running.begin());
        std::thread::sleep(Duration::from_millis(20));
        assert!(one.end() >= Duration::from_millis(20));
        let both = running.sum().saturating_sub(before);
        assert!(both >= Duration::from_millis(40), "{both:?}");
        drop(other);
        let after = running.sum();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(running.sum(), after, "nothing runs");
    }
}
