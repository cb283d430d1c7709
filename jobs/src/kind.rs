//! A kind of job, type-erased.

use std::{future::Future, pin::Pin, time::Duration};

use serde_json::value::RawValue;
use shared::{authz::Permission, queue::QueueName};

use crate::{
    args::{self, ArgsViolation},
    context::JobContext,
    job::{Job, JobError, Success},
};

type RunFuture<'a> = Pin<Box<dyn Future<Output = Result<Success, JobError>> + Send + 'a>>;

/// One kind, type-erased.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// The queue of its jobs.
    pub queue: QueueName,
    /// Whether only Rota creates such jobs.
    pub internal: bool,
    /// For an internal kind, the permission required in addition to `jobs:control` to cancel or
    /// retry its jobs.
    pub control: Option<Permission>,
    /// Number of failures after which a job is discarded.
    pub max_attempts: i16,
    /// The newest version of the arguments that this process supports.
    pub args_version: i16,
    /// Maximum run time.
    pub timeout: Duration,
    /// The JSON schema of its arguments.
    pub schema: serde_json::Value,
    validator: jsonschema::Validator,
    check: fn(&jsonschema::Validator, &RawValue) -> Vec<ArgsViolation>,
    can_decode: fn(&RawValue) -> bool,
    retry_delay: fn(u32) -> Duration,
    run: for<'a> fn(&'a RawValue, &'a JobContext) -> RunFuture<'a>,
}

impl Kind {
    /// Erases the type of a kind.
    ///
    /// # Panics
    /// At start, if the kind's constants are invalid: a malformed queue name or schema.
    pub fn of<J: Job>() -> Self {
        let schema = schemars::schema_for!(J).to_value();
        Self {
            name: J::KIND,
            description: J::DESCRIPTION,
            queue: QueueName::of_program(J::QUEUE),
            internal: J::INTERNAL,
            control: J::CONTROL,
            max_attempts: J::MAX_ATTEMPTS,
            args_version: J::ARGS_VERSION,
            timeout: J::TIMEOUT,
            validator: jsonschema::validator_for(&schema).expect("a derived schema is a valid schema"),
            schema,
            check: args::check::<J>,
            can_decode: |args| args::decode::<J>(args).is_ok(),
            retry_delay: J::retry_delay,
            run: |args, context| {
                Box::pin(async move {
                    let job: J = args::decode(args).map_err(|violation| undecodable(&violation))?;
                    job.run(context).await
                })
            },
        }
    }

    /// The same kind with another name and queue.
    pub(crate) fn under(self, name: &'static str, queue: QueueName) -> Self {
        Self { name, queue, ..self }
    }

    /// Checks arguments against the schema and the decoder; an empty list means that a run can
    /// start with them.
    pub fn check(&self, args: &RawValue) -> Vec<ArgsViolation> {
        (self.check)(&self.validator, args)
    }

    /// Whether a run of this kind can decode the arguments.
    pub fn can_decode(&self, args: &RawValue) -> bool {
        (self.can_decode)(args)
    }

    /// Delay after the given number of failures.
    pub fn retry_delay(&self, failures: u32) -> Duration {
        (self.retry_delay)(failures)
    }

    /// Runs a job of this kind.
    pub async fn run(&self, args: &RawValue, context: &JobContext) -> Result<Success, JobError> {
        (self.run)(args, context).await
    }
}

/// Only jobs from the API of another release fail here, because [`Kind::check`] ends with the same
/// decoder.
fn undecodable(violation: &ArgsViolation) -> JobError {
    JobError::Final(format!("args: {}", violation.detail))
}
