//! A job as clients submit it, and its conversion to a row.
//!
//! Invariant: the errors of a submission are found here, before anything is written, except those
//! that only the ledger can find (relations). The last check decodes the args as a worker will.

use chrono::{DateTime, Utc};
use jobs::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    clock::Clock,
    ids, plain_json,
    queue::{
        JobState, NewJob, Priority,
        ledger::relations::Relations,
        observe::inspect::{JobRecord, ShownState},
    },
    suggestion,
    tenancy::TenantId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::relations::{self, FailurePolicy, JobReference, UniqueSubmission};
use crate::{
    extract::{Timestamp, optional_few},
    problem::{FieldError, Problem, ProblemCode},
};

/// A job to submit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSubmission {
    /// The job's kind; see `job-kinds`.
    #[schema(example = "noop")]
    pub kind: String,
    /// The kind's arguments, according to its schema in `job-kinds`; default `{}`.
    #[schema(value_type = Option<Object>)]
    pub args: Option<Box<RawValue>>,
    /// The priority among the tenant's own jobs: 1 (first) to 4 (last); default 2.
    #[schema(value_type = Option<i16>, minimum = 1, maximum = 4)]
    pub priority: Option<Priority>,
    /// The earliest start; at once if omitted.
    pub run_at: Option<Timestamp>,
    /// Failures after which the job is discarded, 1 to 100; the kind's own number if omitted.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i16>,
    /// No run begins after this time: the job is discarded instead.
    pub expires_at: Option<Timestamp>,
    /// A key that only one of the tenant's jobs holds at a time.
    pub unique: Option<UniqueSubmission>,
    /// Jobs that must be final before this one runs, at most 100; in a batch also earlier jobs of
    /// the batch, such as `"#0"` for the first.
    #[schema(max_items = 100)]
    #[serde(default, deserialize_with = "optional_few::<100, _, _>")]
    pub after: Option<Vec<JobReference>>,
    /// What happens to this job if one of those is discarded or cancelled; default `cancel`.
    pub on_dependency_failure: Option<FailurePolicy>,
}

/// A committed job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobAccepted {
    /// The job's id.
    pub id: Uuid,
    /// The job's kind.
    pub kind: String,
    /// The queue in which the job waits.
    pub queue: String,
    /// `available`, or `scheduled` if its time is still to come or it waits for other jobs.
    pub state: JobState,
}

/// Validates a submission and builds the row to commit. `earlier` has the ids of the jobs before it
/// in a batch, `None` for a rejected one.
pub(super) fn new_job(
    registry: &Registry,
    clock: &Clock,
    tenant: TenantId,
    submission: JobSubmission,
    earlier: &[Option<Uuid>],
) -> Result<NewJob, Problem> {
    let (unique, after) = (submission.unique.as_ref(), submission.after.as_deref());
    let relations = relations::relations(unique, after, submission.on_dependency_failure, earlier)?;
    check_expiry(&submission, clock.now())?;
    let kind = registry.submittable().find(|kind| kind.name == submission.kind);
    let kind = kind.ok_or_else(|| unknown_kind(registry, &submission.kind))?;
    let args = submission.args.unwrap_or_else(|| plain_json::raw(&serde_json::Map::new()));
    check_args_size(args.get().len(), registry.max_args_bytes())?;
    let violations = kind.check(&args);
    if !violations.is_empty() {
        let errors =
            violations.into_iter().map(|violation| FieldError { pointer: violation.pointer, detail: violation.detail });
        return Err(Problem::new(ProblemCode::InvalidArgs).errors(errors.collect()));
    }
    let max_attempts = submission.max_attempts.unwrap_or(kind.max_attempts);
    if !(1..=100).contains(&max_attempts) {
        let error = FieldError { pointer: "/max_attempts".into(), detail: "max_attempts must be 1 to 100".into() };
        return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
    }
    Ok(NewJob {
        id: ids::new_id(clock),
        tenant,
        queue: kind.queue.clone(),
        kind: kind.name.into(),
        args,
        priority: submission.priority.unwrap_or(Priority::DEFAULT),
        max_attempts,
        // A past time means now: the job neither overtakes the tenant's older jobs nor counts as a
        // long wait.
        run_at: submission.run_at.map(Timestamp::get).filter(|run_at| *run_at > clock.now()),
        expires_at: submission.expires_at.map(Timestamp::get),
        args_version: kind.args_version,
        relations,
    })
}

/// A job that could never start is a mistake of the client.
fn check_expiry(submission: &JobSubmission, now: DateTime<Utc>) -> Result<(), Problem> {
    let Some(expires_at) = submission.expires_at.map(Timestamp::get) else { return Ok(()) };
    if expires_at <= submission.run_at.map_or(now, |run_at| run_at.get().max(now)) {
        let detail = "expires_at must be later than now and run_at".into();
        let error = FieldError { pointer: "/expires_at".into(), detail };
        return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
    }
    Ok(())
}

/// Checked before parsing: a tree takes many times the memory of its text.
fn check_args_size(bytes: usize, limit: usize) -> Result<(), Problem> {
    if bytes <= limit {
        return Ok(());
    }
    let detail = format!("the args have {bytes} bytes; the limit is {limit}");
    let error = FieldError { pointer: "/args".into(), detail };
    Err(Problem::new(ProblemCode::InvalidArgs).errors(vec![error]))
}

fn unknown_kind(registry: &Registry, name: &str) -> Problem {
    let name: String = name.chars().take(100).collect();
    let near = suggestion::nearest(&name, registry.submittable().map(|kind| kind.name));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    let is_internal = registry.get(&name).is_some();
    let detail = if is_internal {
        format!("jobs of the kind {name:?} are only created by Rota itself")
    } else {
        format!("there is no kind {name:?}{hint}")
    };
    let error = FieldError { pointer: "/kind".into(), detail: detail.clone() };
    Problem::new(ProblemCode::UnknownKind).detail(detail).errors(vec![error])
}

impl JobSubmission {
    /// A submission with the kind's own settings.
    pub(super) fn plain(kind: String, args: Option<Box<RawValue>>) -> Self {
        Self {
            kind,
            args,
            priority: None,
            run_at: None,
            max_attempts: None,
            expires_at: None,
            unique: None,
            after: None,
            on_dependency_failure: None,
        }
    }
}

impl JobAccepted {
    pub(super) fn of(job: &NewJob, clock: &Clock) -> Self {
        let waits = job.relations.as_deref().is_some_and(Relations::waits);
        let state = if waits || job.run_at.is_some_and(|run_at| run_at > clock.now()) {
            JobState::Scheduled
        } else {
            JobState::Available
        };
        Self { id: job.id, kind: job.kind.to_string(), queue: job.queue.to_string(), state }
    }
}

impl From<JobRecord> for JobAccepted {
    fn from(job: JobRecord) -> Self {
        let waits = job.waits_for > 0 || job.state == ShownState::Ledger(JobState::Scheduled);
        let state = if waits { JobState::Scheduled } else { JobState::Available };
        Self { id: job.id, kind: job.kind, queue: job.queue, state }
    }
}
