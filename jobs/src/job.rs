//! What a job kind is: arguments with a schema, and what to do with them.
//!
//! Invariant: a run may happen twice (a crash, a lost lease), so every kind says in its module doc why that is harmless.
//! Next: [`crate::kinds`] for the kinds there are, [`crate::registry`] for how they are found by name.

use std::{future::Future, time::Duration};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use shared::{
    authz::Permission,
    clock::Clock,
    ids,
    queue::{NewJob, Priority},
    tenancy::TenantId,
};

use crate::{backoff, context::JobContext, error_summary};

/// A kind of job; the type itself is its arguments.
pub trait Job: DeserializeOwned + JsonSchema + Send + 'static {
    /// A verb phrase. Jobs in the ledger carry it, so it never changes.
    const KIND: &'static str;
    /// One sentence for whoever reads the list of kinds.
    const DESCRIPTION: &'static str;
    /// Where it waits.
    const QUEUE: &'static str;
    /// Whether only Rota itself makes such jobs: a client that could make them would go around the permissions of what they
    /// belong to.
    const INTERNAL: bool = false;
    /// Of an internal kind, the permission to control what its jobs belong to: to cancel or retry one, a credential needs it
    /// beside `jobs:control`.
    const CONTROL: Option<Permission> = None;
    /// Failures after which it is discarded, unless the job says otherwise.
    const MAX_ATTEMPTS: i16 = 20;
    /// The form of the arguments. To be raised when a worker of the release before would misread them: it then leaves such
    /// jobs to those that know the new form.
    const ARGS_VERSION: i16 = 1;
    /// How long a run may take; then it is cancelled and counts as failed.
    const TIMEOUT: Duration = Duration::from_mins(5);

    /// How long to wait after the given number of failures (1 for the first).
    fn retry_delay(failures: u32) -> Duration {
        backoff::exponential(failures, Duration::from_secs(1), Duration::from_hours(6))
    }

    /// Does the work.
    fn run(self, context: &JobContext) -> impl Future<Output = Result<Success, JobError>> + Send;
}

/// A job of a kind with the kind's own defaults, to be committed by a [`shared::queue::producer::Producer`].
///
/// # Panics
/// If the kind's arguments cannot be written as JSON: a kind's are ids and plain values.
pub fn new_job<J: Job + Serialize>(clock: &Clock, tenant: TenantId, job: &J) -> NewJob {
    NewJob {
        id: ids::new_id(clock),
        tenant,
        queue: J::QUEUE.parse().expect("a kind's QUEUE is a valid queue name"),
        kind: J::KIND.into(),
        args: serde_json::value::to_raw_value(job).expect("a kind's arguments are plain values"),
        priority: Priority::DEFAULT,
        max_attempts: J::MAX_ATTEMPTS,
        run_at: None,
        expires_at: None,
        args_version: J::ARGS_VERSION,
        ties: None,
    }
}

/// A run that did not fail.
#[derive(Debug)]
pub enum Success {
    /// The work is done.
    Done,
    /// The work is done and left something to be read.
    DoneWith(Box<RawValue>),
    /// Not now: again after this long; counts as no failure.
    Snooze(Duration),
    /// The work is not wanted any more; the text says why.
    Cancel(String),
}

/// A run that failed. The text is shown to the tenant in the job's errors.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Trying again may help.
    #[error("{}", shared::error_text::with_causes(.0.as_ref()))]
    Retry(#[from] anyhow::Error),
    /// Trying again is pointless: the job is discarded at once.
    #[error("{0}")]
    Final(String),
}

impl JobError {
    /// Class and codes, without a word that another system wrote.
    pub fn for_log(&self) -> String {
        match self {
            Self::Retry(error) => error_summary::for_log(error),
            Self::Final(_) => "given up".to_owned(),
        }
    }

    /// The text that the tenant is shown.
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
