//! Calls the handlers of job kinds and turns their results into outcomes.
//!
//! Invariant: a run always ends in an outcome, whether its handler returns an error, panics or
//! times out. A cancelled run is the only exception.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use jobs::{
    backoff,
    context::JobContext,
    environment::Environment,
    error_summary::text_for_ledger,
    job::{JobError, Success},
    kind::Kind,
    registry::Registry,
};
use shared::queue::{
    Lease,
    complete::{Outcome, bounded_text},
};
use tokio_util::sync::CancellationToken;

use super::failure_log;
use crate::capacity::start_cost::RunningTime;

/// A run that fails by an outage of Rota's own database counts as a failure after this many runs
/// that did not: a handler whose own statement ends the connection would run for ever.
const MAX_UNCOUNTED_RUNS: u32 = 100;
/// First and longest pause of a job after such a run.
const OUTAGE_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Runs handlers.
pub struct Handlers {
    registry: Arc<Registry>,
    environment: Arc<Environment>,
    running: RunningTime,
}

impl Handlers {
    /// Handlers of the kinds in `registry`; `environment` was built on the runtime of the handlers.
    pub const fn new(registry: Arc<Registry>, environment: Arc<Environment>, running: RunningTime) -> Self {
        Self { registry, environment, running }
    }

    /// The registered kinds.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The environment that handlers use.
    pub const fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// Runs the handler of a leased job of this kind. Returns the outcome and the run time. The
    /// outcome is `None` if the run was cancelled: either the ledger already holds the reason, or
    /// the job is released.
    pub async fn run(
        &self,
        kind: &Kind,
        lease: &Arc<Lease>,
        cancelled: CancellationToken,
    ) -> (Option<Outcome>, Duration) {
        let running = self.running.begin();
        let outcome = self.outcome(kind, lease, cancelled).await;
        (outcome, running.end())
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
            Ok(Ok(Err(error))) if error.is_outage() && uncounted_runs(lease) < MAX_UNCOUNTED_RUNS => {
                failure_log::failed(lease.tenant, &error.for_log());
                Outcome::Snoozed { delay: outage_pause(lease) }
            }
            Ok(Ok(Err(error @ JobError::Retry(_)))) => {
                failed(kind, lease, &error.for_log(), bounded_text(error.for_ledger()))
            }
            Ok(Err(panic)) => {
                let text = bounded_text(format_args!("panicked: {}", panic_text(&*panic)));
                failed(kind, lease, "panicked", bounded_text(text_for_ledger(&text)))
            }
            Err(_elapsed) => {
                let text = format!("timed out after {} s", kind.timeout.as_secs());
                failed(kind, lease, &text.clone(), text)
            }
        })
    }
}

fn succeeded(success: Success) -> Outcome {
    match success {
        Success::Done => Outcome::Completed { result: None },
        Success::DoneWith(result) => Outcome::completed_with(result),
        Success::Snooze(delay) => Outcome::Snoozed { delay },
        Success::Cancel(reason) => Outcome::Cancelled { reason: bounded_text(reason) },
    }
}

/// `class` contains no text from external systems: that text may only appear in the ledger, where
/// the tenant reads it.
fn failed(kind: &Kind, lease: &Lease, class: &str, error: String) -> Outcome {
    failure_log::failed(lease.tenant, class);
    let failures = lease.failures.saturating_add(1);
    if failures >= lease.max_attempts {
        Outcome::Discarded { error }
    } else {
        Outcome::Retry { error, delay: kind.retry_delay(u32::try_from(failures).unwrap_or(1)) }
    }
}

/// Earlier runs that were no failures.
fn uncounted_runs(lease: &Lease) -> u32 {
    u32::try_from(lease.attempt - 1 - i32::from(lease.failures)).unwrap_or(0)
}

fn outage_pause(lease: &Lease) -> Duration {
    let (first, longest) = OUTAGE_PAUSES;
    backoff::exponential(uncounted_runs(lease) + 1, first, longest)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("non-string payload")
}
