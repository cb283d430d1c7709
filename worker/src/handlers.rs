//! Handlers: what a kind does, on a runtime of its own, and how that ends.
//!
//! Invariant: whatever a handler does (return an error, panic, take too long, block its thread), leases are renewed, ends are written and health
//! is answered, for all of that runs on another runtime with connections of its own. The only task there is the handler itself; a run that it
//! has not begun can be taken back.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jobs::{
    context::JobContext,
    environment::Environment,
    error_summary::text_for_ledger,
    job::{JobError, Success},
    registry::{Kind, Registry},
};
use shared::queue::{
    consumer::Lease,
    finish::{Outcome, bounded_text},
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{failure_log, holdings::Holdings, stall::Stall, start_cost::RunningTime};

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const TAKEN_BACK: u8 = 2;

/// Where handlers run.
#[derive(Clone)]
pub struct HandlerRuntime {
    /// The runtime. That of the machinery only in tests.
    pub handle: Handle,
    /// Whether it gets on.
    pub stall: Stall,
}

/// Runs handlers. Cheap to clone.
#[derive(Clone)]
pub struct Handlers {
    runtime: HandlerRuntime,
    registry: Arc<Registry>,
    environment: Arc<Environment>,
    running: RunningTime,
    holdings: Holdings,
}

/// One run of a handler.
pub struct Attempt {
    /// How it ended; `None` if it was cut short from outside: then the ledger already knows why, or the job is released.
    pub outcome: Option<Outcome>,
    /// How long it ran; zero if it was taken back before it began.
    pub ran: Duration,
}

impl HandlerRuntime {
    /// This runtime.
    pub fn new(handle: Handle) -> Self {
        Self { handle, stall: Stall::new() }
    }
}

impl Handlers {
    /// Handlers of these kinds, on this runtime; `environment` was made on it.
    pub fn new(
        runtime: HandlerRuntime,
        registry: Arc<Registry>,
        environment: Arc<Environment>,
        running: RunningTime,
        holdings: Holdings,
    ) -> Self {
        Self { runtime, registry, environment, running, holdings }
    }

    /// Whether handlers get on.
    pub fn stall(&self) -> &Stall {
        &self.runtime.stall
    }

    /// The kinds.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What handlers have at hand.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Runs the handler of a leased job; of a kind that [`Self::registry`] knows.
    pub async fn attempt(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Attempt {
        let phase = Arc::new(AtomicU8::new(WAITS));
        let may_begin = {
            let phase = Arc::clone(&phase);
            move || phase.compare_exchange(WAITS, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        let handlers = self.clone();
        let run = async move { if may_begin() { handlers.run(lease, cancelled).await } else { Attempt::TAKEN_BACK } };
        let mut run = self.runtime.handle.spawn(run.in_current_span());
        let ended = tokio::select! {
            biased;
            ended = &mut run => ended,
            () = self.stall().begun() => {
                if phase.compare_exchange(WAITS, TAKEN_BACK, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return Attempt::TAKEN_BACK;
                }
                run.await
            }
        };
        // Panics are caught inside, so only the end of the runtime ends a task; then the lease runs out and the job is rescued.
        ended.unwrap_or(Attempt::TAKEN_BACK)
    }

    async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Attempt {
        let (began, _running) = (Instant::now(), self.running.begin());
        self.holdings.set_running(lease.id, lease.token, true);
        let outcome = match self.registry.get(&lease.kind) {
            Some(kind) => self.outcome(kind, &lease, cancelled).await,
            None => None,
        };
        self.holdings.set_running(lease.id, lease.token, false);
        Attempt { outcome, ran: began.elapsed() }
    }

    async fn outcome(&self, kind: &Kind, lease: &Arc<Lease>, cancelled: CancellationToken) -> Option<Outcome> {
        let context = JobContext::new(Arc::clone(lease), Arc::clone(&self.environment), cancelled.clone());
        let work = AssertUnwindSafe(kind.run(&lease.args, &context)).catch_unwind();
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => return None,
            result = tokio::time::timeout(kind.timeout, work) => result,
        };
        Some(match result {
            Ok(Ok(Ok(success))) => succeeded(success),
            Ok(Ok(Err(error @ JobError::Final(_)))) => Outcome::Discarded { error: bounded_text(error.for_ledger()) },
            Ok(Ok(Err(error @ JobError::Retry(_)))) => {
                failed(kind, lease, &error.for_log(), bounded_text(error.for_ledger()))
            }
            Ok(Err(panic)) => {
                let text = bounded_text(format_args!("panicked: {}", panic_text(&*panic)));
                failed(kind, lease, "panicked", bounded_text(text_for_ledger(&text)))
            }
            Err(_elapsed) => {
                let text = format!("took longer than {} s", kind.timeout.as_secs());
                failed(kind, lease, &text.clone(), text)
            }
        })
    }
}

impl Attempt {
    const TAKEN_BACK: Self = Self { outcome: None, ran: Duration::ZERO };
}

fn succeeded(success: Success) -> Outcome {
    match success {
        Success::Done => Outcome::Completed { result: None },
        Success::DoneWith(result) => Outcome::completed_with(result),
        Success::Snooze(delay) => Outcome::Snoozed { delay },
        Success::Cancel(reason) => Outcome::Cancelled { reason: bounded_text(reason) },
    }
}

/// `class` has no word of another system's in it: only the tenant reads those, in the ledger.
fn failed(kind: &Kind, lease: &Lease, class: &str, error: String) -> Outcome {
    failure_log::failed(lease.tenant, class);
    let failures = lease.failures.saturating_add(1);
    if failures >= lease.max_attempts {
        Outcome::Discarded { error }
    } else {
        Outcome::Retry { error, delay: kind.retry_delay(u32::try_from(failures).unwrap_or(1)) }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text")
}
