//! A bounded pool of threads for computation that tenants control: templates, large documents.
//!
//! Invariant: such work never runs on a thread of the async runtime, and no tenant ever occupies all threads of the pool: each has a
//! share of them, tenants are served in turn ([`turns`]), and the number of its waiting computations is bounded. The work itself must
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

/// Far more than parsers and renderers need within their limits.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Behind the threads that serve requests and keep leases, where processors are short: a third of their weight.
const NICENESS: i32 = 5;

/// How large a pool is.
#[derive(Clone, Copy, Debug)]
pub struct ComputeSettings {
    /// Threads; at least two, so that one tenant leaves one to the others.
    pub threads: usize,
    /// Computations of one tenant that may wait; more are refused.
    pub max_waiting: usize,
}

impl ComputeSettings {
    /// For a process whose callers can be refused: a thread for each processor, 128 waiting computations for each tenant.
    pub fn refusing() -> Self {
        let processors = thread::available_parallelism().map_or(2, NonZeroUsize::get);
        Self { threads: processors.clamp(2, 8), max_waiting: 128 }
    }

    /// For a process that bounds its callers otherwise, as a worker does by its slots: nothing is refused.
    pub fn waiting() -> Self {
        Self { max_waiting: usize::MAX, ..Self::refusing() }
    }
}

/// The tenant has too many computations waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many computations of this tenant are waiting")]
pub struct Busy;

/// The pool. Its threads end with its last clone.
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
    /// If the system gives no thread: without it the process could not work at all.
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
                .expect("the system gives a thread at start");
        }
        Self(Arc::new(Handle(shared)))
    }

    /// Runs `work` when it is the tenant's turn. A panic of `work` is a panic here. Work whose caller is gone before its turn is
    /// left out. `task` names it in metrics.
    pub async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let (sender, receiver) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let run = Box::new(move || {
            if !sender.is_closed() {
                // What the work leaves behind after a panic is dropped with it.
                let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
            }
        });
        if !self.0.0.push(tenant, Computation { task, since: Instant::now(), run }) {
            counter!(names::COMPUTE_REFUSED_TOTAL, names::label::TASK => task).increment(1);
            return Err(Busy);
        }
        match receiver.await.expect("the pool lives as long as its callers and runs all that it accepted") {
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
        // A system that does not permit it gets its work done all the same.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        while let Some((tenant, computation)) = self.next() {
            let Computation { task, since, run } = computation;
            histogram!(names::COMPUTE_WAIT_SECONDS, names::label::TASK => task).record(since.elapsed());
            let begun = Instant::now();
            run();
            histogram!(names::COMPUTE_DURATION_SECONDS, names::label::TASK => task).record(begun.elapsed());
            self.lock().turns.finish(tenant);
            // The tenant's next computation may have waited for its share.
            self.changed.notify_one();
        }
    }

    /// Waits for a turn; `None` once the pool has ended.
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

/// Processor time that the calling thread has used. Limits on computation count this and not the time of day, so that a busy machine
/// fails nobody's work.
pub fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
