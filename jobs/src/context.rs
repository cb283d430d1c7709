//! What a running job has at hand.
//!
//! Invariant: the database is reached through the job's own tenant; there is no way to another's rows.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    db::TenantTx,
    queue::{
        NewJob,
        batches::{self, BatchRecord},
        consumer::Lease,
        effects::Effect,
        progress::Progress,
    },
    tenancy::TenantId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::environment::Environment;

/// One run of one job.
pub struct JobContext {
    lease: Arc<Lease>,
    environment: Arc<Environment>,
    cancelled: CancellationToken,
    reported: Mutex<Option<Instant>>,
}

/// How long an effect is remembered in the index; the ledger knows of it long before.
const EFFECT_TTL: Duration = Duration::from_hours(24);
/// Reports of progress that follow each other faster are left out, but for the one of 100 percent.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

impl JobContext {
    /// The context of a leased job.
    pub const fn new(lease: Arc<Lease>, environment: Arc<Environment>, cancelled: CancellationToken) -> Self {
        Self { lease, environment, cancelled, reported: Mutex::new(None) }
    }

    /// The job's id.
    pub fn job_id(&self) -> Uuid {
        self.lease.id
    }

    /// Whose job it is.
    pub fn tenant(&self) -> TenantId {
        self.lease.tenant
    }

    /// Which run this is, from 1.
    pub fn attempt(&self) -> i32 {
        self.lease.attempt
    }

    /// Runs that failed so far.
    pub fn failures(&self) -> i16 {
        self.lease.failures
    }

    /// Whether another failure would be the last one allowed.
    pub fn is_last_attempt(&self) -> bool {
        self.lease.failures + 1 >= self.lease.max_attempts
    }

    /// What the process offers: mail, HTTP, clock.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Ends when the run is not wanted any more: the job was cancelled, its lease was lost, or the process stops. Kinds need not
    /// look at it, the run is dropped at its next await; those that block a thread or must tidy up do.
    pub const fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Says how far the run is: 0 to 100 percent, and what it does. Costs next to nothing, so it may be called in a loop; a report
    /// that cannot be noted is left out.
    pub async fn progress(&self, percent: u8, message: Option<&str>) {
        if !self.is_report_due(percent) {
            return;
        }
        let progress = Progress::new(percent, message, self.lease.attempt, self.environment.clock.now());
        let Lease { id, tenant, shard, .. } = &*self.lease;
        if let Err(error) = self.environment.index.report_progress(shard, *tenant, *id, &progress).await {
            tracing::debug!(%error, "progress could not be noted");
        }
    }

    fn is_report_due(&self, percent: u8) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let due = percent >= 100 || reported.is_none_or(|last| last.elapsed() >= REPORT_PAUSE);
        if due {
            *reported = Some(Instant::now());
        }
        due
    }

    /// The batch that the job belongs to or completes, with how many of its jobs ended how.
    pub async fn batch(&self) -> Result<Option<BatchRecord>, sqlx::Error> {
        let Some(id) = self.lease.batch_id else { return Ok(None) };
        batches::find(&mut self.begin().await?, id).await
    }

    /// Begins a transaction of the job's tenant.
    pub async fn begin(&self) -> Result<TenantTx, sqlx::Error> {
        self.environment.tenants.begin(self.lease.tenant).await
    }

    /// Commits a transaction in which `jobs` were written with [[`shared::queue::producer::Producer::enqueue_in`]], and makes them known.
    pub async fn commit_and_announce(&self, transaction: TenantTx, jobs: &[NewJob]) -> Result<(), sqlx::Error> {
        transaction.commit().await?;
        self.environment.producer.announce(jobs);
        Ok(())
    }

    /// Notes that an effect outside is about to be tried, and returns when it first was: a repeat can then be the same. The index
    /// holds the note; if that is away or lost, this is the first try.
    pub async fn begin_effect(&self, effect: &str) -> Effect {
        let now = self.environment.clock.now();
        self.environment.index.begin_effect(effect, now, EFFECT_TTL).await.unwrap_or(Effect::Begun(now))
    }

    /// The effect that was begun was surely not made.
    pub async fn forget_effect(&self, effect: &str) {
        if let Err(error) = self.environment.index.forget_begun_effect(effect).await {
            tracing::debug!(%error, "an effect that was not made is remembered as begun");
        }
    }

    /// Does something outside that [`Self::begin_effect`] said did not happen yet. The index is told right after the effect, long
    /// before the ledger's commit, and is asked when the job runs again: a worker killed between the effect and the commit does
    /// not repeat it. If the index was lost as well, it is repeated; an effect must bear that (a stable Message-ID, a key).
    /// A run that is cancelled meanwhile does not tear the effect from its note: both go on to their end.
    pub async fn make_effect<T, E, F>(&self, effect: String, act: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let index = self.environment.index.clone();
        let whole = tokio::spawn(async move {
            let value = act.await?;
            if let Err(error) = index.mark_effect(&effect, EFFECT_TTL).await {
                tracing::debug!(%error, "an effect could not be noted in the index; the ledger will know");
            }
            Ok(value)
        });
        match whole.await {
            Ok(result) => result,
            // A panic of the effect is a panic of the run.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
