//! `/api/v1/jobs`: submits, shows, lists, cancels and redrives jobs. [`submission`]
//! validates submissions.

pub mod batch;
pub mod bulk;
mod control;
pub mod events;
pub mod explain;
pub mod kinds;
mod relations;
mod submission;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header::LOCATION};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use shared::{
    queue::{
        JobState, announcement,
        control::{self as queue_control, ControlOutcome},
        enqueue::EnqueueError,
        ledger::follow_up::Position,
        ledger::request::{EnqueueRequest, Enqueued},
        observe::inspect::{self, JobFilter, JobRecord},
    },
    tenancy::TenantId,
};
use utoipa::IntoParams;
use uuid::Uuid;

use self::submission::{JobAccepted, JobSubmission, new_job};
use crate::{
    auth::{JobsControl, JobsCreate, JobsRead, Permit},
    extract::{Json, Page, PageBody, PageRequest, Path, Query, Submission},
    problem::{Problem, ProblemCode},
    state::{AppState, Parts},
};

const ADDRESS: &str = "/api/v1/jobs";

/// The filter and the page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Only jobs in this ledger state.
    #[param(inline)]
    state: Option<JobState>,
    /// Only jobs of this kind.
    #[param(pattern = r"^[^\x00]*$")]
    kind: Option<String>,
    /// Only jobs in this queue.
    #[param(pattern = r"^[^\x00]*$")]
    queue: Option<String>,
    /// Maximum number of items, 1 to 200; default 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
    /// Start of the page: `next_cursor` of the previous page.
    #[param(pattern = r"^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
}

/// Submits a job.
///
/// A 202 means that the job is committed to disk and will run.
#[utoipa::path(post, path = "/api/v1/jobs", operation_id = "create_job", tag = "jobs", request_body = JobSubmission,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]{0,253}[!-~])?$", description = "A repeat with the same key and body gets the response of the first request and creates no second job")),
    responses((status = 202, body = JobAccepted, description = "The job is committed", headers(("Location" = String, description = "The path of the job"))), (status = 409, description = "`duplicate`: another job, `job_id`, holds the unique key")))]
pub async fn create(
    permit: Permit<JobsCreate>,
    State(state): State<AppState>,
    submission: Submission<JobSubmission>,
) -> Result<Response, Problem> {
    let (tenant, key) = (permit.tenant(), submission.key.clone());
    match submit(&state, tenant, submission).await {
        Err(refusal) => {
            let earlier = key.earlier(&state.stores.tenants, tenant, refusal).await?;
            replayed(&state, tenant, earlier.first_id, earlier.response).await
        }
        result => result,
    }
}

async fn submit(
    state: &AppState,
    tenant: TenantId,
    Submission { body, size_bytes, key }: Submission<JobSubmission>,
) -> Result<Response, Problem> {
    let body = body?;
    let work = move |state: &Parts| new_job(&state.registry, &state.clock, tenant, body, &[]);
    let job = state.examine(tenant, size_bytes, work).await??;
    let accepted = JobAccepted::of(&job, &state.clock);
    // Stored, since it describes this moment: later the job may be due, or its kind removed.
    let idempotency = key.idempotency(|| to_raw_value(&accepted).ok());
    let jobs = vec![job];
    state.dependencies.admit(&state.stores.tenants, tenant, &jobs).await?;
    match state.producer.enqueue(EnqueueRequest { jobs, idempotency }).await? {
        Enqueued::Created => {
            let location = [(LOCATION, format!("{ADDRESS}/{}", accepted.id))];
            Ok((StatusCode::ACCEPTED, location, Json(accepted)).into_response())
        }
        Enqueued::CreatedExcept(refused) => Err(refused[0].refusal.clone().into()),
        Enqueued::Replayed { first_job, response, .. } => replayed(state, tenant, first_job, response).await,
        Enqueued::KeyReused => Err(ProblemCode::IdempotencyKeyReused.into()),
    }
}

/// Replays the response to an earlier request. The previous release stored none, so it is then
/// built from the job.
async fn replayed(
    state: &AppState,
    tenant: TenantId,
    first_job: Uuid,
    response: Option<Box<RawValue>>,
) -> Result<Response, Problem> {
    let response = if let Some(response) = response {
        response
    } else {
        let mut transaction = state.stores.tenants.begin(tenant).await?;
        let job = inspect::find(&mut transaction, &state.stores.index, first_job).await?;
        let accepted = JobAccepted::from(job.ok_or(ProblemCode::NotFound)?);
        to_raw_value(&accepted).map_err(|error| Problem::new(ProblemCode::Internal).caused_by(error))?
    };
    let headers = [("idempotency-replayed", "true".to_owned()), ("location", format!("{ADDRESS}/{first_job}"))];
    Ok((StatusCode::ACCEPTED, headers, Json(response)).into_response())
}

/// Shows a job.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", operation_id = "get_job", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = JobRecord, description = "The job")))]
pub async fn show(
    permit: Permit<JobsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let job = inspect::find(&mut transaction, &state.stores.index, id).await?;
    job.map(Json).ok_or_else(|| ProblemCode::NotFound.into())
}

/// Lists jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs", params(JobQuery),
    responses((status = 200, body = PageBody<JobRecord>, description = "A page of jobs", headers(("Link" = String, description = "The next page, if there is one")))))]
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

/// Cancels a waiting or running job.
///
/// The worker of a running job is notified at once, and the job can no longer complete.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = JobRecord, description = "The cancelled job"), (status = 409, description = "The job is already final")))]
pub async fn cancel(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin_by_key(permit.tenant()).await?;
    control::require(&state.registry, &permit, &mut transaction, id).await?;
    let job = done(queue_control::cancel(&mut transaction, id).await?)?;
    transaction.commit().await?;
    announcement::cancelled(&state.stores.index, &job).await;
    show(Permit::from(permit), State(state), Path(id)).await
}

/// Retries a discarded or cancelled job.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/retry", operation_id = "retry_job", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = JobRecord, description = "The job, waiting again"), (status = 409, description = "The job is neither discarded nor cancelled, or another job holds its unique key")))]
pub async fn retry(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin_by_key(permit.tenant()).await?;
    control::require(&state.registry, &permit, &mut transaction, id).await?;
    let job = done(queue_control::redrive(&mut transaction, id).await?)?;
    transaction.commit().await?;
    announcement::redriven(&state.stores.index, std::slice::from_ref(&job)).await;
    show(Permit::from(permit), State(state), Path(id)).await
}

fn done(outcome: ControlOutcome) -> Result<Position, Problem> {
    match outcome {
        ControlOutcome::Done(position) => Ok(position),
        ControlOutcome::Refused(state) => Err(Problem::new(ProblemCode::Conflict)
            .detail(format!("the job is {}", state.as_str()))
            .member("state", state.as_str())),
        ControlOutcome::Settling => Err(Problem::new(ProblemCode::Conflict)
            .detail("jobs that waited for this one are still being released or cancelled")
            .retry_after(1)),
        ControlOutcome::KeyHeld(holder) => Err(relations::duplicate(holder)),
        ControlOutcome::NotFound => Err(ProblemCode::NotFound.into()),
    }
}

impl From<EnqueueError> for Problem {
    fn from(error: EnqueueError) -> Self {
        let (code, reason) = match error {
            EnqueueError::KeyInFlight => (ProblemCode::IdempotencyInFlight, "key_in_flight"),
            EnqueueError::Overloaded => (ProblemCode::TooManyInFlight, "overloaded"),
            EnqueueError::Unavailable => (ProblemCode::Unavailable, "unavailable"),
            EnqueueError::Ledger(_) => (ProblemCode::Internal, "ledger"),
        };
        metrics::counter!(shared::telemetry::names::ENQUEUE_REJECTED_TOTAL, "reason" => reason).increment(1);
        let problem = Self::new(code).caused_by(error);
        if code.status().is_client_error() { problem.retry_after(1) } else { problem }
    }
}
