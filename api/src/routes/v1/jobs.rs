//! `/api/v1/jobs`: submit a job, see it, list, cancel and redrive.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::{StatusCode, Uri, header::LOCATION};
use jobs::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    clock::Clock,
    ids,
    queue::{
        JobState, NewJob, Priority,
        control::{self, Steered},
        inspect::{self, JobFilter, JobRecord},
        producer::{EnqueueError, EnqueueRequest, Enqueued},
        ties::Ties,
    },
    suggestion,
    tenancy::TenantId,
};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::job_ties::{self, FailurePolicy, UniqueSubmission};
use crate::{
    auth::{JobsControl, JobsCreate, JobsRead, Permit},
    extract::{Json, Page, PageRequest, Path, Query, Submission, optional_few},
    problem::{FieldError, Problem, ProblemCode},
    state::{AppState, Parts},
};

/// A job that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSubmission {
    /// What it does; see `job-kinds`.
    #[schema(example = "noop")]
    pub kind: String,
    /// The kind's arguments; `{}` if left out.
    #[schema(value_type = Object)]
    pub args: Option<Box<RawValue>>,
    /// Its place among the tenant's own jobs: 1 (first) to 4 (last); 2 if left out.
    #[schema(value_type = Option<i16>, minimum = 1, maximum = 4)]
    pub priority: Option<Priority>,
    /// When it may run at the earliest; at once if left out.
    pub run_at: Option<DateTime<Utc>>,
    /// Failures after which it is discarded, 1 to 100; the kind's own number if left out.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i16>,
    /// No run begins after this: the job is discarded instead.
    pub expires_at: Option<DateTime<Utc>>,
    /// A key that only one of the tenant's jobs holds at a time.
    pub unique: Option<UniqueSubmission>,
    /// Jobs that must be final before this one runs, 100 at most; in a batch also earlier jobs of it, as `"#0"` for the first.
    #[schema(max_items = 100)]
    #[serde(default, deserialize_with = "optional_few::<101, _, _>")]
    pub after: Option<Vec<String>>,
    /// What becomes of this job if one of those is discarded or cancelled; `cancel` if left out.
    pub on_dependency_failure: Option<FailurePolicy>,
}

/// A job that was committed.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobAccepted {
    /// The job's id.
    pub id: Uuid,
    /// What it does.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// `available`, or `scheduled` if its time is yet to come or it waits for other jobs.
    #[schema(value_type = String)]
    pub state: JobState,
}

/// What a list is restricted to.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Only jobs in this ledger state: scheduled, available, retryable, completed, cancelled, discarded.
    #[param(value_type = Option<String>)]
    state: Option<JobState>,
    /// Only this kind.
    kind: Option<String>,
    /// Only this queue.
    queue: Option<String>,
    /// How many, 1 to 200; 50 if left out.
    limit: Option<u16>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Submits a job. The answer 202 means that it is committed to disk and will run.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = JobSubmission,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key and body is answered like the first request and makes no second job")),
    responses((status = 202, body = JobAccepted, description = "The job is committed", headers(("Location" = String, description = "Where the job can be seen"))), (status = 409, description = "`duplicate`: the job `job_id` holds the unique key")))]
pub async fn create(
    permit: Permit<JobsCreate>,
    State(state): State<AppState>,
    submission: Submission<JobSubmission>,
) -> Result<Response, Problem> {
    let idempotency = submission.idempotency(None);
    let (tenant, body) = (permit.tenant(), submission.body);
    let work = move |state: &Parts| new_job(&state.registry, &state.clock, tenant, body, &[]);
    let job = state.examine(tenant, submission.size_bytes, work).await??;
    let mut accepted = JobAccepted::of(&job, &state.clock);
    let enqueued = state.producer.enqueue(EnqueueRequest { jobs: vec![job], idempotency }).await?;
    let mut headers = http::HeaderMap::new();
    match enqueued {
        Enqueued::Created => {}
        Enqueued::CreatedExcept(refused) => return Err(refused[0].refusal.clone().into()),
        Enqueued::Replayed { first_job, .. } => {
            accepted.id = first_job;
            headers.insert("idempotency-replayed", http::HeaderValue::from_static("true"));
        }
        Enqueued::KeyReused => return Err(ProblemCode::IdempotencyKeyReused.into()),
    }
    Ok((StatusCode::ACCEPTED, headers, [(LOCATION, format!("/api/v1/jobs/{}", accepted.id))], Json(accepted))
        .into_response())
}

/// Shows a job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = Object, description = "The job: id, kind, queue, state, priority, attempt, max_attempts, args, result, errors, run_at, inserted_at, finalized_at, expires_at, unique_key, batch_id, waits_for, progress")))]
pub async fn show(
    permit: Permit<JobsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let job = inspect::find(&mut transaction, &state.stores.index, id).await?;
    job.map(Json).ok_or_else(|| ProblemCode::NotFound.into())
}

/// Lists jobs, the newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(JobQuery),
    responses((status = 200, body = crate::extract::PageBody<Object>, description = "A page of jobs", headers(("Link" = String, description = "The next page, if there is one")))))]
pub async fn list(
    permit: Permit<JobsRead>,
    State(state): State<AppState>,
    uri: Uri,
    Query(query): Query<JobQuery>,
) -> Result<Page<JobRecord>, Problem> {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let filter = JobFilter { state: query.state, kind: query.kind, queue: query.queue };
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let jobs = inspect::list(&mut transaction, &state.stores.index, &filter, page.before, page.fetch_limit()).await?;
    Ok(page.page(jobs, |job| job.id, &uri))
}

/// Cancels a job that waits or runs. A running one is told at once, and can no longer complete.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = Object, description = "The job, cancelled"), (status = 409, description = "It is final already")))]
pub async fn cancel(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let job = done(control::cancel(&mut transaction, id).await?)?;
    transaction.commit().await?;
    control::announce_cancelled(&state.stores.index, &job).await;
    show(Permit::from(permit), State(state), Path(id)).await
}

/// Makes a discarded or cancelled job run again.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = Object, description = "The job, waiting again"), (status = 409, description = "It is neither discarded nor cancelled, or another job holds its unique key")))]
pub async fn retry(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let job = done(control::redrive(&mut transaction, id).await?)?;
    transaction.commit().await?;
    control::announce_redriven(&state.stores.index, &job).await;
    show(Permit::from(permit), State(state), Path(id)).await
}

fn done(steered: Steered) -> Result<control::Position, Problem> {
    match steered {
        Steered::Done(position) => Ok(position),
        Steered::Refused(state) => Err(Problem::new(ProblemCode::Conflict)
            .detail(format!("the job is {}", state.as_str()))
            .member("state", state.as_str())),
        Steered::KeyHeld(holder) => Err(job_ties::duplicate(holder)),
        Steered::NotFound => Err(ProblemCode::NotFound.into()),
    }
}

/// Judges a submission and makes the row that is to be committed. `earlier` are the jobs before it in a batch.
pub(super) fn new_job(
    registry: &Registry,
    clock: &Clock,
    tenant: TenantId,
    submission: JobSubmission,
    earlier: &[Option<Uuid>],
) -> Result<NewJob, Problem> {
    let ties = job_ties::ties(&submission, earlier)?;
    job_ties::check_expiry(&submission, clock.now())?;
    let kind = registry.submittable().find(|kind| kind.name == submission.kind);
    let kind = kind.ok_or_else(|| unknown_kind(registry, &submission.kind))?;
    let args =
        submission.args.unwrap_or_else(|| RawValue::from_string("{}".to_owned()).expect("an empty object is JSON"));
    check_args_size(args.get().len(), registry.max_args_bytes())?;
    let value: serde_json::Value = serde_json::from_str(args.get())
        .map_err(|error| Problem::new(ProblemCode::InvalidJson).detail(error.to_string()))?;
    let violations = kind.check(&value);
    if !violations.is_empty() {
        let errors =
            violations.into_iter().map(|violation| FieldError { pointer: violation.pointer, detail: violation.detail });
        return Err(Problem::new(ProblemCode::InvalidArgs).errors(errors.collect()));
    }
    let max_attempts = submission.max_attempts.unwrap_or(kind.max_attempts);
    if !(1..=100).contains(&max_attempts) {
        let error = FieldError { pointer: "/max_attempts".into(), detail: "max_attempts is 1 to 100".into() };
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
        // The past means now: it neither overtakes the tenant's older jobs nor counts as a long wait.
        run_at: submission.run_at.filter(|run_at| *run_at > clock.now()),
        expires_at: submission.expires_at,
        args_version: kind.args_version,
        ties,
    })
}

/// Before they are parsed: a tree takes many times the memory of its text.
fn check_args_size(bytes: usize, limit: usize) -> Result<(), Problem> {
    if bytes <= limit {
        return Ok(());
    }
    let detail = format!("the args have {bytes} bytes, and {limit} are permitted");
    let error = FieldError { pointer: "/args".into(), detail };
    Err(Problem::new(ProblemCode::InvalidArgs).errors(vec![error]))
}

fn unknown_kind(registry: &Registry, asked: &str) -> Problem {
    let asked: String = asked.chars().take(100).collect();
    let near = suggestion::nearest(&asked, registry.submittable().map(|kind| kind.name));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    Problem::new(ProblemCode::UnknownKind).detail(format!("there is no kind {asked:?}{hint}"))
}

impl JobSubmission {
    /// One with the kind's own settings.
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
        let waits = job.ties.as_deref().is_some_and(Ties::waits);
        let state = if waits || job.run_at.is_some_and(|run_at| run_at > clock.now()) {
            JobState::Scheduled
        } else {
            JobState::Available
        };
        Self { id: job.id, kind: job.kind.to_string(), queue: job.queue.to_string(), state }
    }
}

impl From<EnqueueError> for Problem {
    fn from(error: EnqueueError) -> Self {
        let (code, reason) = match error {
            EnqueueError::Overloaded => (ProblemCode::Unavailable, "overloaded"),
            EnqueueError::Unavailable => (ProblemCode::Unavailable, "unavailable"),
            EnqueueError::Ledger(_) => (ProblemCode::Internal, "ledger"),
        };
        metrics::counter!(shared::telemetry::names::ENQUEUE_REJECTED_TOTAL, "reason" => reason).increment(1);
        Self::new(code).caused_by(error)
    }
}
