//! The context of a running job.
//!
//! Invariant: the database is accessed as the job's own tenant; another tenant's rows are
//! unreachable.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    db::TenantTx,
    queue::{
        Lease, NewJob,
        complete::effects::Effect,
        observe::batches::{self, BatchRecord},
        observe::progress::Progress,
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

/// How long the index remembers an effect; the ledger records it long before that.
const EFFECT_TTL: Duration = Duration::from_hours(24);
/// Minimum time between progress reports. Reports in between are dropped, except the one of 100
/// percent.
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

    /// The job's tenant.
    pub fn tenant(&self) -> TenantId {
        self.lease.tenant
    }

    /// Number of the run, from 1.
    pub fn attempt(&self) -> i32 {
        self.lease.attempt
    }

    /// Number of failed runs so far.
    pub fn failures(&self) -> i16 {
        self.lease.failures
    }

    /// Whether another failure would be the last one allowed.
    pub fn is_last_attempt(&self) -> bool {
        self.lease.failures + 1 >= self.lease.max_attempts
    }

    /// The process's services: mail, HTTP, clock.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Cancelled when the run is no longer wanted: the job was cancelled, its lease was lost, or
    /// the process is stopping. Most kinds can ignore it, because the run is dropped at its next
    /// await; kinds that block a thread or need cleanup must check it.
    pub const fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Reports how far the run is: 0 to 100 percent, and a message. The cost is negligible, so this
    /// may be called in a loop; a report that cannot be stored is dropped.
    pub async fn progress(&self, percent: u8, message: Option<&str>) {
        if !self.is_report_due(percent) {
            return;
        }
        let progress = Progress::new(percent, message, self.lease.attempt, self.environment.clock.now());
        let Lease { id, tenant, shard, .. } = &*self.lease;
        if let Err(error) = self.environment.index.report_progress(shard, *tenant, *id, &progress).await {
            tracing::debug!(%error, "progress could not be recorded");
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

    /// The batch that the job belongs to or completes, with the number of its jobs by outcome.
    pub async fn batch(&self) -> Result<Option<BatchRecord>, sqlx::Error> {
        let Some(id) = self.lease.batch_id else { return Ok(None) };
        batches::find(&mut self.begin().await?, id).await
    }

    /// Begins a transaction as the job's tenant.
    pub async fn begin(&self) -> Result<TenantTx, sqlx::Error> {
        self.environment.tenants.begin(self.lease.tenant).await
    }

    /// Commits a transaction in which `jobs` were inserted with
    /// [`shared::queue::enqueue::Producer::enqueue_in`], and announces them.
    pub async fn commit_and_announce(&self, transaction: TenantTx, jobs: &[NewJob]) -> Result<(), sqlx::Error> {
        transaction.commit().await?;
        self.environment.producer.announce(jobs);
        Ok(())
    }

    /// Records that an external effect is about to be attempted, and returns when it was first
    /// attempted, so that a repeat can be identical. The index holds the record; if the index is
    /// unavailable or lost, this counts as the first attempt.
    pub async fn begin_effect(&self, effect: &str) -> Effect {
        let now = self.environment.clock.now();
        self.environment.index.begin_effect(effect, now, EFFECT_TTL).await.unwrap_or(Effect::Begun(now))
    }

    /// Forgets an effect that was begun but certainly did not happen.
    pub async fn forget_effect(&self, effect: &str) {
        if let Err(error) = self.environment.index.forget_begun_effect(effect).await {
            tracing::debug!(%error, "an effect that did not happen is still recorded as begun");
        }
    }

    /// Performs an external effect that has not happened yet according to [`Self::begin_effect`].
    /// The index is updated right after the effect, long before the ledger's commit, and consulted
    /// when the job runs again, so a worker that is killed between effect and commit does not
    /// repeat it. If the index is lost as well, the effect is repeated; an effect must tolerate
    /// that (a stable Message-ID, a key). Cancelling the run in the meantime does not separate the
    /// effect from its record: both complete.
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
                tracing::debug!(%error, "an effect could not be recorded in the index; the ledger will record it");
            }
            Ok(value)
        });
        match whole.await {
            Ok(result) => result,
            // A panic in the effect is a panic of the run.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
