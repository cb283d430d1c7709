//! One run of one job: find its kind, run it within its time, and say how it ended. What this release does not know is left
//! to another worker: see [`skew`].
//!
//! Invariant: whatever a kind does (return an error, panic, take too long), the run ends in an [`Outcome`] and
//! the process lives on. Only death takes the process: that is what leases are for.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
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
use shared::{
    db::{SystemDb, sql_state},
    faults::{self, Point},
    queue::{consumer::Lease, finish::Outcome, rescue},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    finisher::{Ended, Finisher},
    holdings::Holdings,
    last_chance::{self, Alone, LastChances},
    skew,
};

/// Runs jobs. One for the process.
pub struct Runner {
    registry: Arc<Registry>,
    environment: Arc<Environment>,
    holdings: Holdings,
    finisher: Finisher,
    last_chances: LastChances,
    system: SystemDb,
}

impl Runner {
    /// A runner over the process's kinds and services.
    pub const fn new(
        registry: Arc<Registry>,
        environment: Arc<Environment>,
        holdings: Holdings,
        finisher: Finisher,
        last_chances: LastChances,
        system: SystemDb,
    ) -> Self {
        Self { registry, environment, holdings, finisher, last_chances, system }
    }

    /// Runs a leased job to its end, leaves the end with the finisher, and returns how long it ran; `None` if it did not begin.
    pub async fn run(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Option<Duration> {
        let span = tracing::info_span!("job", job_id = %lease.id, tenant = %lease.tenant, kind = %lease.kind, attempt = lease.attempt);
        self.run_inside_span(lease, cancelled).instrument(span).await
    }

    async fn run_inside_span(&self, lease: Arc<Lease>, cancelled: CancellationToken) -> Option<Duration> {
        let kind = match skew::judge(&self.registry, &lease) {
            Ok(kind) => kind,
            Err(reason) => {
                crate::metrics::left(&lease, reason);
                tokio::time::sleep(skew::TAKES).await;
                let lease = skew::put_off(&lease, &self.environment.clock).into();
                self.finisher.ended(Ended { lease, outcome: None, ran: skew::TAKES }).await;
                return None;
            }
        };
        let Some(_company) = self.company(&lease, &cancelled).await else {
            self.hand_back(lease).await;
            return None;
        };
        if !self.is_own(&lease).await {
            self.hand_back(lease).await;
            return None;
        }
        let started = Instant::now();
        let outcome = self.attempt(kind, &lease, cancelled).await;
        let ran = started.elapsed();
        faults::pass(Point::AfterEffectBeforeFinish).await;
        crate::metrics::ended(&lease, outcome.as_ref(), ran);
        self.finisher.ended(Ended { lease, outcome, ran }).await;
        Some(ran)
    }

    /// Whether the job's lease is still this process's, which costs nothing unless it waited, or the process stood still, for long.
    async fn is_own(&self, lease: &Lease) -> bool {
        match lease.is_own(&self.environment.index).await {
            Ok(is_own) => is_own,
            Err(error) => {
                tracing::debug!(%error, "the lease cannot be renewed, so the run does not begin");
                false
            }
        }
    }

    /// Who else may be in the process meanwhile; `None` if the job was cancelled, must give way to another's last chance, or its own
    /// cannot begin.
    async fn company(&self, lease: &Lease, cancelled: &CancellationToken) -> Option<Company<'_>> {
        if lease.crashes < last_chance::CRASHES {
            let may_begin = !cancelled.is_cancelled() && !self.last_chances.is_announced();
            return may_begin.then_some(Company::Others);
        }
        // A box keeps what is seldom needed out of the future of each run, which is moved about.
        Box::pin(cancelled.run_until_cancelled(self.last_chance(lease))).await.flatten()
    }

    async fn last_chance(&self, lease: &Lease) -> Option<Company<'_>> {
        let alone = self.last_chances.alone(&self.holdings).await?;
        match rescue::begin_last_chance(&self.system, lease).await {
            Ok(noted) => noted.then_some(Company::Alone(alone)),
            Err(error) => {
                tracing::warn!(error = sql_state(&error), "the last chance cannot be noted, so it does not begin");
                None
            }
        }
    }

    /// `None` if the run was cut short from outside: then the ledger already knows why, or the job is handed back.
    async fn attempt(&self, kind: &Kind, lease: &Arc<Lease>, cancelled: CancellationToken) -> Option<Outcome> {
        let context = JobContext::new(Arc::clone(lease), Arc::clone(&self.environment), cancelled.clone());
        let work = AssertUnwindSafe(kind.run(&lease.args, &context)).catch_unwind();
        let result = tokio::select! {
            biased;
            () = cancelled.cancelled() => return None,
            result = tokio::time::timeout(kind.timeout, work) => result,
        };
        Some(match result {
            Ok(Ok(Ok(success))) => succeeded(success),
            Ok(Ok(Err(error @ JobError::Final(_)))) => Outcome::Discarded { error: error.for_ledger() },
            Ok(Ok(Err(error @ JobError::Retry(_)))) => failed(kind, lease, &error.for_log(), error.for_ledger()),
            Ok(Err(panic)) => {
                let text = text_for_ledger(&format!("panicked: {}", panic_text(&*panic)));
                failed(kind, lease, "panicked", text)
            }
            Err(_elapsed) => {
                let text = format!("took longer than {} s", kind.timeout.as_secs());
                failed(kind, lease, &text.clone(), text)
            }
        })
    }

    /// Gives up what was leased but has not begun.
    pub async fn hand_back(&self, lease: Arc<Lease>) {
        self.finisher.ended(Ended { lease, outcome: None, ran: Duration::ZERO }).await;
    }

    /// The runs before which everything else gives way.
    pub const fn last_chances(&self) -> &LastChances {
        &self.last_chances
    }

    /// What this process holds.
    pub const fn holdings(&self) -> &Holdings {
        &self.holdings
    }
}

/// Held for the length of a run.
enum Company<'a> {
    Alone(#[expect(dead_code, reason = "held, not read")] Alone<'a>),
    Others,
}

fn succeeded(success: Success) -> Outcome {
    match success {
        Success::Done => Outcome::Completed { result: None },
        Success::DoneWith(result) => Outcome::completed_with(result),
        Success::Snooze(delay) => Outcome::Snoozed { delay },
        Success::Cancel(reason) => Outcome::Cancelled { reason },
    }
}

/// `class` has no word of another system's in it: only the tenant reads those, in the ledger.
fn failed(kind: &Kind, lease: &Lease, class: &str, error: String) -> Outcome {
    tracing::info!(class, "the job failed");
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
