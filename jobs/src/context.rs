//! What a running job has at hand.
//!
//! Invariant: the database is reached through the job's own tenant; there is no way to another's rows.

use std::{future::Future, sync::Arc, time::Duration};

use shared::{
    db::TenantTx,
    queue::{NewJob, consumer::Lease},
    tenancy::TenantId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::environment::Environment;

/// One run of one job.
pub struct JobContext {
    lease: Lease,
    environment: Arc<Environment>,
    cancelled: CancellationToken,
}

/// How long an effect is remembered in the index; the ledger knows of it long before.
const EFFECT_TTL: Duration = Duration::from_hours(24);

impl JobContext {
    /// The context of a leased job.
    pub const fn new(lease: Lease, environment: Arc<Environment>, cancelled: CancellationToken) -> Self {
        Self { lease, environment, cancelled }
    }

    /// The job's id.
    pub const fn job_id(&self) -> Uuid {
        self.lease.id
    }

    /// Whose job it is.
    pub const fn tenant(&self) -> TenantId {
        self.lease.tenant
    }

    /// Which run this is, from 1.
    pub const fn attempt(&self) -> i32 {
        self.lease.attempt
    }

    /// Runs that failed so far.
    pub const fn failures(&self) -> i16 {
        self.lease.failures
    }

    /// Whether another failure would be the last one allowed.
    pub const fn is_last_attempt(&self) -> bool {
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

    /// Does something outside once per `effect`, as far as that can be known. The index is told right after the effect, long
    /// before the ledger's commit, and is asked when the job runs again: a worker killed between the effect and the commit does
    /// not repeat it. If the index was lost as well, it is repeated; an effect must bear that (a stable Message-ID, a key).
    /// A run that is cancelled meanwhile does not tear the effect from its note: both go on to their end.
    pub async fn once<T, E, F>(&self, effect: String, act: F) -> Result<Once<T>, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let index = self.environment.index.clone();
        if index.effect_happened(&effect).await.unwrap_or(false) {
            return Ok(Once::Earlier);
        }
        let whole = tokio::spawn(async move {
            let value = act.await?;
            if let Err(error) = index.mark_effect(&effect, EFFECT_TTL).await {
                tracing::debug!(%error, "an effect could not be noted in the index; the ledger will know");
            }
            Ok(Once::Now(value))
        });
        match whole.await {
            Ok(result) => result,
            // A panic of the effect is a panic of the run.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Whether an effect was made by this run.
#[derive(Debug)]
pub enum Once<T> {
    /// By this run.
    Now(T),
    /// By an earlier run of the job.
    Earlier,
}
