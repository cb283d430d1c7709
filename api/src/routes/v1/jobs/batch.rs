//! `/api/v1/jobs/batch`: up to a thousand jobs in one request and one commit, each with its own
//! result, and optionally a job that runs once all of them are final.
//!
//! Invariant: a response, replayed or not, is built the same way: the jobs that were accepted here,
//! without those that the ledger rejected.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use jobs::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::{
    clock::Clock,
    ids, plain_json,
    queue::{
        JobState, NewJob,
        ledger::relations::{BatchPart, Refused},
        ledger::request::{EnqueueRequest, Enqueued},
        observe::batches::{self, BatchRecord},
    },
    tenancy::TenantId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::submission::{JobAccepted, JobSubmission, new_job};
use crate::{
    auth::{JobsCreate, JobsRead, Permit},
    extract::{Json, Path, Submission, few},
    problem::{FieldError, Problem, ProblemCode},
    state::{AppState, Parts},
};

const MAX_JOBS: usize = 1_000;
/// Maximum errors in the result of a rejected job: one response has up to a thousand results, and
/// with an idempotency key the ledger stores it.
const MAX_ERRORS_PER_JOB: usize = 3;
/// The cost of checking an invalid job, expressed as bytes of a parsed document.
const BYTES_OF_A_JOB: usize = 8 * 1024;

/// Jobs to submit together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchSubmission {
    /// 1 to 1,000 jobs. Invalid jobs are rejected one by one; the others are committed together.
    #[schema(min_items = 1, max_items = 1000)]
    #[serde(deserialize_with = "few::<1000, _, _>")]
    jobs: Vec<JobSubmission>,
    /// A job that runs once all others are final, however they ended.
    on_complete: Option<CompletionSubmission>,
}

/// The completion job of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionSubmission {
    /// The job's kind.
    kind: String,
    /// The kind's arguments; default `{}`. The run has access to the batch as well.
    #[schema(value_type = Option<Object>)]
    args: Option<Box<RawValue>>,
}

/// The results of the jobs, in their order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchOutcome {
    /// The number of committed jobs.
    accepted: usize,
    /// The number of rejected jobs.
    rejected: usize,
    /// The id of the batch, if it has a completion job.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<Uuid>,
    /// One result for each job.
    results: Vec<BatchResult>,
}

/// The result of one job.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
enum BatchResult {
    /// The job is committed.
    Accepted {
        /// The job's id.
        id: Uuid,
        /// `available` or `scheduled`.
        state: JobState,
    },
    /// The job was rejected.
    Rejected {
        /// The reason for programs.
        code: ProblemCode,
        /// The reason for people.
        detail: String,
        /// The errors by their position in the job.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        errors: Vec<FieldError>,
        /// For a duplicate, the job that holds the unique key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job_id: Option<Uuid>,
    },
}

/// Submits up to 1,000 jobs in one commit, with a result for each.
#[utoipa::path(post, path = "/api/v1/jobs/batch", operation_id = "create_job_batch", tag = "jobs", request_body = BatchSubmission,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = r"^[!-~]([ -~]{0,253}[!-~])?$", description = "A repeat with the same key and body gets the response of the first request and creates no further jobs")),
    responses((status = 202, body = BatchOutcome, description = "The accepted jobs are committed"), (status = 422, description = "No job was valid; the problem also has `results`")))]
pub async fn create(
    permit: Permit<JobsCreate>,
    State(state): State<AppState>,
    submission: Submission<BatchSubmission>,
) -> Result<Response, Problem> {
    let (tenant, key) = (permit.tenant(), submission.key.clone());
    match submit(&state, tenant, submission).await {
        Err(refusal) => {
            let earlier = key.earlier(&state.stores.tenants, tenant, refusal).await?;
            replayed(earlier.response, earlier.refused)
        }
        result => result,
    }
}

async fn submit(
    state: &AppState,
    tenant: TenantId,
    Submission { body, size_bytes, key }: Submission<BatchSubmission>,
) -> Result<Response, Problem> {
    let body = body?;
    check_size(body.jobs.len())?;
    let cost_bytes = size_bytes.max(body.jobs.len() * BYTES_OF_A_JOB);
    let work = move |state: &Parts| {
        let (jobs, outcome) = validate(&state.registry, &state.clock, tenant, body)?;
        if outcome.accepted == 0 { Err(outcome.into_problem()) } else { Ok((jobs, outcome)) }
    };
    let (jobs, outcome) = state.examine(tenant, cost_bytes, work).await??;
    state.dependencies.admit(&state.stores.tenants, tenant, &jobs).await?;
    let idempotency = key.idempotency(|| serde_json::value::to_raw_value(&outcome).ok());
    match state.producer.enqueue(EnqueueRequest { jobs, idempotency }).await? {
        Enqueued::Created => Ok((StatusCode::ACCEPTED, Json(outcome)).into_response()),
        Enqueued::CreatedExcept(refused) => {
            let outcome = outcome.without(refused);
            if outcome.accepted == 0 {
                return Err(outcome.into_problem());
            }
            Ok((StatusCode::ACCEPTED, Json(outcome)).into_response())
        }
        Enqueued::Replayed { response, refused, .. } => replayed(response, refused),
        Enqueued::KeyReused => Err(ProblemCode::IdempotencyKeyReused.into()),
    }
}

/// Shows a batch that has a completion job.
#[utoipa::path(get, path = "/api/v1/jobs/batch/{id}", operation_id = "get_job_batch", tag = "jobs", params(("id" = Uuid, Path, description = "The batch's id")),
    responses((status = 200, body = BatchRecord, description = "The batch")))]
pub async fn show(
    permit: Permit<JobsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<BatchRecord>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let batch = batches::find(&mut transaction, id).await?;
    batch.map(Json).ok_or_else(|| ProblemCode::NotFound.into())
}

fn check_size(count: usize) -> Result<(), Problem> {
    if (1..=MAX_JOBS).contains(&count) {
        return Ok(());
    }
    let detail = format!("a batch has 1 to {MAX_JOBS} jobs, this one has {count}");
    Err(Problem::invalid("/jobs", detail))
}

/// The valid jobs, followed by the completion job, and the response if the ledger accepts them all.
fn validate(
    registry: &Registry,
    clock: &Clock,
    tenant: TenantId,
    submission: BatchSubmission,
) -> Result<(Vec<NewJob>, BatchOutcome), Problem> {
    let count = submission.jobs.len();
    let (mut jobs, mut results, mut ids) = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::new());
    for job in submission.jobs {
        match unlike(&jobs, &job).and_then(|()| new_job(registry, clock, tenant, job, &ids)) {
            Ok(job) => {
                ids.push(Some(job.id));
                let JobAccepted { id, state, .. } = JobAccepted::of(&job, clock);
                results.push(BatchResult::Accepted { id, state });
                jobs.push(job);
            }
            Err(problem) => {
                ids.push(None);
                results.push(BatchResult::of(&problem));
            }
        }
    }
    let mut outcome = BatchOutcome { accepted: jobs.len(), rejected: count - jobs.len(), batch_id: None, results };
    if let Some(completion) = submission.on_complete {
        let completion = JobSubmission::plain(completion.kind, completion.args);
        let mut completion =
            new_job(registry, clock, tenant, completion, &[]).map_err(|problem| problem.under("/on_complete"))?;
        let batch = ids::new_id(clock);
        for job in &mut jobs {
            job.relations.get_or_insert_default().batch = Some(BatchPart::Member(batch));
        }
        completion.relations.get_or_insert_default().batch = Some(BatchPart::Completion(batch));
        jobs.push(completion);
        outcome.batch_id = Some(batch);
    }
    Ok((jobs, outcome))
}

/// Two jobs of one batch cannot both hold a key: this is a mistake of the client, not a race.
fn unlike(earlier: &[NewJob], job: &JobSubmission) -> Result<(), Problem> {
    let Some(unique) = &job.unique else { return Ok(()) };
    let key_of = |job: &NewJob| Some(job.relations.as_deref()?.unique.as_ref()?.key == unique.key);
    if !earlier.iter().any(|job| key_of(job) == Some(true)) {
        return Ok(());
    }
    Err(Problem::invalid("/unique/key", "an earlier job of the batch has this key"))
}

fn replayed(response: Option<Box<RawValue>>, refused: Vec<Refused>) -> Result<Response, Problem> {
    let headers = [("idempotency-replayed", "true")];
    if refused.is_empty() {
        return Ok((StatusCode::ACCEPTED, headers, Json(response)).into_response());
    }
    let stored = response.as_deref().map_or("null", RawValue::get);
    let outcome: BatchOutcome =
        serde_json::from_str(stored).map_err(|error| Problem::new(ProblemCode::Internal).caused_by(error))?;
    Ok((StatusCode::ACCEPTED, headers, Json(outcome.without(refused))).into_response())
}

impl BatchOutcome {
    /// The outcome after the ledger rejected some of the jobs.
    fn without(mut self, refused: Vec<Refused>) -> Self {
        for refused in refused {
            let is_it =
                |result: &&mut BatchResult| matches!(result, BatchResult::Accepted { id, .. } if *id == refused.id);
            // The completion job of a batch without remaining jobs has no result of its own.
            let Some(result) = self.results.iter_mut().find(is_it) else { continue };
            *result = BatchResult::of(&refused.refusal.into());
            self.accepted -= 1;
            self.rejected += 1;
        }
        self
    }

    fn into_problem(self) -> Problem {
        let results = plain_json::raw(&self.results);
        Problem::new(ProblemCode::InvalidBody)
            .detail("no job of the batch is valid; results has the reasons")
            .member("accepted", self.accepted)
            .member("rejected", self.rejected)
            .written_member("results", results)
    }
}

impl BatchResult {
    fn of(problem: &Problem) -> Self {
        let holder = problem.own_member("job_id").and_then(serde_json::Value::as_str);
        Self::Rejected {
            code: problem.code(),
            detail: problem.detail_text().to_owned(),
            errors: problem.field_errors().iter().take(MAX_ERRORS_PER_JOB).cloned().collect(),
            job_id: holder.and_then(|id| id.parse().ok()),
        }
    }
}
