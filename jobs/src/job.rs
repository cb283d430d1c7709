//! The definition of a job kind: arguments with a schema, and the work to do.
//!
//! Invariant: a run may happen twice (after a crash or a lost lease), so the module doc of every
//! kind states why that is harmless. Next: [`crate::kinds`], the existing kinds, and
//! [`crate::registry`], which finds them by name.

use std::{error::Error, future::Future, time::Duration};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use shared::{
    authz::Permission,
    clock::Clock,
    db, ids, plain_json,
    queue::{NewJob, Priority, QueueName},
    tenancy::TenantId,
};

use crate::{backoff, context::JobContext, error_summary};

/// A kind of job. The type itself is the kind's arguments.
pub trait Job: DeserializeOwned + JsonSchema + Send + 'static {
    /// A verb phrase. Jobs in the ledger contain it, so it never changes.
    const KIND: &'static str;
    /// One sentence for the list of kinds.
    const DESCRIPTION: &'static str;
    /// The queue of its jobs.
    const QUEUE: &'static str;
    /// Whether only Rota creates such jobs. If clients could create them, they would bypass the
    /// permissions of the objects that the jobs belong to.
    const INTERNAL: bool = false;
    /// For an internal kind, the permission to control the objects that its jobs belong to:
    /// cancelling or retrying a job requires this permission in addition to `jobs:control`.
    const CONTROL: Option<Permission> = None;
    /// Number of failures after which a job is discarded, unless the job sets its own.
    const MAX_ATTEMPTS: i16 = 20;
    /// Version of the arguments. Raise it when a worker of the previous release would misread them:
    /// that worker then leaves such jobs to workers that know the new version.
    const ARGS_VERSION: i16 = 1;
    /// Maximum run time; a run that exceeds it is cancelled and counts as failed.
    const TIMEOUT: Duration = Duration::from_mins(5);

    /// Delay after the given number of failures (1 for the first).
    fn retry_delay(failures: u32) -> Duration {
        backoff::exponential(failures, Duration::from_secs(1), Duration::from_hours(6))
    }

    /// Runs the job.
    fn run(self, context: &JobContext) -> impl Future<Output = Result<Success, JobError>> + Send;
}

/// A job with the kind's own defaults, to be committed by a [`shared::queue::enqueue::Producer`].
///
/// # Panics
/// If the kind's arguments cannot be serialised as JSON; they are ids and plain values.
pub fn new_job<J: Job + Serialize>(clock: &Clock, tenant: TenantId, job: &J) -> NewJob {
    NewJob {
        id: ids::new_id(clock),
        tenant,
        queue: QueueName::of_program(J::QUEUE),
        kind: J::KIND.into(),
        args: plain_json::raw(job),
        priority: Priority::DEFAULT,
        max_attempts: J::MAX_ATTEMPTS,
        run_at: None,
        expires_at: None,
        args_version: J::ARGS_VERSION,
        relations: None,
    }
}

/// A run that did not fail.
#[derive(Debug)]
pub enum Success {
    /// The work is done.
    Done,
    /// The work is done and has a result.
    DoneWith(Box<RawValue>),
    /// Run again after this time; does not count as a failure.
    Snooze(Duration),
    /// The work is no longer wanted, for this reason.
    Cancel(String),
}

/// A run that failed. The text is shown to the tenant in the job's errors.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A retry may succeed.
    #[error("{}", shared::error_text::with_causes(.0.as_ref()))]
    Retry(#[from] anyhow::Error),
    /// A retry is pointless: the job is discarded immediately.
    #[error("{0}")]
    Final(String),
}

impl JobError {
    /// Whether the run failed because Rota's own database is out of service.
    pub fn is_outage(&self) -> bool {
        let is_outage = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(db::is_outage);
        matches!(self, Self::Retry(error) if error.chain().any(is_outage))
    }

    /// Class and codes, without words that another system wrote.
    pub fn for_log(&self) -> String {
        match self {
            Self::Retry(error) => error_summary::for_log(error),
            Self::Final(_) => "given up".to_owned(),
        }
    }

    /// The text shown to the tenant.
    pub fn for_ledger(&self) -> String {
        match self {
            Self::Retry(error) => error_summary::for_ledger(error),
            Self::Final(text) => error_summary::text_for_ledger(text),
        }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::Retry(error.into())
    }
}
