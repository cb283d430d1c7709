//! A bounded thread pool for computation whose cost tenants control: templates, large documents.
//!
//! Invariant: such work never runs on a thread of the async runtime, and no tenant ever occupies
//! all threads of the pool. Each tenant may use half of the threads, tenants are served round-robin
//! ([`turns`]), and the number of a tenant's waiting computations is bounded. The work itself must
//! be bounded by its author, since a thread cannot be interrupted.

mod turns;

use std::{
    any::Any,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use metrics::{counter, gauge, histogram};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use self::turns::Turns;
use crate::{telemetry::names, tenancy::TenantId};

/// Stack of a compute thread; far more than parsers and renderers need within their limits.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Nice value of compute threads. It gives them a third of the CPU weight of the threads that serve
/// requests and renew leases.
const NICENESS: i32 = 5;

/// Size of a pool.
#[derive(Clone, Copy, Debug)]
pub struct ComputeSettings {
    /// Number of threads, at least two: one tenant leaves one for the others.
    pub threads: usize,
    /// Maximum number of waiting computations per tenant; more are refused.
    pub max_waiting: usize,
}

impl ComputeSettings {
    /// For a process that may refuse callers: one thread per processor (2 to 8), 128 waiting
    /// computations per tenant.
    pub fn refusing() -> Self {
        let processors = thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self { threads: processors.clamp(2, 8), max_waiting: 128 }
    }

    /// For a process that bounds its callers in another way, as a worker does with its slots:
    /// nothing is refused.
    pub fn waiting() -> Self {
        Self { max_waiting: usize::MAX, ..Self::refusing() }
    }
}

/// The tenant has too many computations waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many computations of this tenant are waiting")]
pub struct Busy;

/// The pool. Its threads end when the last clone is dropped.
#[derive(Clone)]
pub struct ComputePool(Arc<Handle>);

struct Handle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    turns: Turns<Computation>,
    stopped: bool,
}

struct Computation {
    task: &'static str,
    since: Instant,
    run: Box<dyn FnOnce() + Send>,
}

impl ComputePool {
    /// Starts the threads.
    ///
    /// # Panics
    /// If the operating system cannot create a thread; the process could not work without the pool.
    pub fn start(settings: ComputeSettings) -> Self {
        let threads = settings.threads.max(2);
        let turns = Turns::new(threads / 2, settings.max_waiting);
        let state = Mutex::new(State { turns, stopped: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("compute-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.work())
                .expect("the system can create a thread at start");
        }
        Self(Arc::new(Handle(shared)))
    }

    /// Runs `work` when it is the tenant's turn. A panic in `work` is propagated to the caller.
    /// Work whose caller has gone away before its turn is skipped. `task` is its label in metrics.
    pub async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (sender, receiver) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let run = Box::new(move || {
            if !sender.is_closed() {
                // State that the work leaves behind after a panic is dropped with the work.
                let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
            }
        });
        if !self.0.0.push(tenant, Computation { task, since: Instant::now(), run }) {
            counter!(names::COMPUTE_REFUSED_TOTAL, names::label::TASK => task).increment(1);
            return Err(Busy);
        }
        match receiver.await.expect("the pool outlives its callers and runs all work that it accepted") {
            Ok(result) => Ok(result),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, tenant: TenantId, computation: Computation) -> bool {
        let mut state = self.lock();
        let accepted = state.turns.push(tenant, computation);
        gauge!(names::COMPUTE_WAITING).set(u32::try_from(state.turns.waiting()).unwrap_or(u32::MAX));
        drop(state);
        if accepted {
            self.changed.notify_one();
        }
        accepted
    }

    fn work(&self) {
        // Lowering the priority may not be permitted; the work then runs at normal priority.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        while let Some((tenant, computation)) = self.next() {
            let Computation { task, since, run } = computation;
            histogram!(names::COMPUTE_WAIT_SECONDS, names::label::TASK => task).record(since.elapsed());
            let begun = Instant::now();
            run();
            histogram!(names::COMPUTE_DURATION_SECONDS, names::label::TASK => task).record(begun.elapsed());
            self.lock().turns.finish(tenant);
            // A computation of the same tenant may be waiting for its share.
            self.changed.notify_one();
        }
    }

    /// Waits for the next computation; `None` once the pool has stopped.
    fn next(&self) -> Option<(TenantId, Computation)> {
        let mut state = self.lock();
        loop {
            if let Some(turn) = state.turns.take() {
                gauge!(names::COMPUTE_WAITING).set(u32::try_from(state.turns.waiting()).unwrap_or(u32::MAX));
                return Some(turn);
            }
            if state.stopped {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Processor time used by the calling thread. Limits on computation count processor time instead of
/// wall-clock time, so that work does not fail because the machine is busy.
pub fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
