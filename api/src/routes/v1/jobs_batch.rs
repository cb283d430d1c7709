//! `/api/v1/jobs/batch`: up to a thousand jobs in one request and one commit, each with a result of its own.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::queue::producer::{EnqueueRequest, Enqueued};
use utoipa::ToSchema;
use uuid::Uuid;

use super::jobs::{JobAccepted, JobSubmission, new_job};
use crate::{
    auth::{JobsCreate, Permit},
    extract::{Json, Submission},
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

const MAX_JOBS: usize = 1_000;

/// Jobs that are asked for together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchSubmission {
    /// 1 to 1,000 jobs. Those that are not in order are refused one by one; the others are committed together.
    #[schema(min_items = 1, max_items = 1000)]
    jobs: Vec<JobSubmission>,
}

/// What became of the jobs, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchOutcome {
    /// How many were committed.
    accepted: usize,
    /// How many were refused.
    rejected: usize,
    /// One for each job.
    results: Vec<BatchResult>,
}

/// What became of one job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
enum BatchResult {
    /// It is committed.
    Accepted {
        /// The job's id.
        id: Uuid,
        /// `available` or `scheduled`.
        state: &'static str,
    },
    /// It was refused.
    Rejected {
        /// Why, for programs.
        code: ProblemCode,
        /// Why, for people.
        detail: String,
        /// Where in the job.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        errors: Vec<FieldError>,
    },
}

/// Submits up to 1,000 jobs in one commit, with a result for each.
#[utoipa::path(post, path = "/api/v1/jobs/batch", tag = "jobs", request_body = BatchSubmission,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key and body is answered like the first request and makes no second jobs")),
    responses((status = 202, body = BatchOutcome, description = "The accepted jobs are committed"), (status = 422, description = "No job was in order; the problem has `results` too")))]
pub async fn create(
    permit: Permit<JobsCreate>,
    State(state): State<AppState>,
    submission: Submission<BatchSubmission>,
) -> Result<Response, Problem> {
    let count = submission.body.jobs.len();
    if !(1..=MAX_JOBS).contains(&count) {
        let error = FieldError {
            pointer: "/jobs".into(),
            detail: format!("a batch has 1 to {MAX_JOBS} jobs, this one has {count}"),
        };
        return Err(Problem::new(ProblemCode::InvalidBody).errors(vec![error]));
    }
    let idempotency = submission.idempotency(None);
    let (mut jobs, mut results) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for job in submission.body.jobs {
        match new_job(&state.registry, &state.clock, permit.tenant(), job) {
            Ok(job) => {
                let JobAccepted { id, state, .. } = JobAccepted::of(&job, &state.clock);
                results.push(BatchResult::Accepted { id, state });
                jobs.push(job);
            }
            Err(problem) => results.push(BatchResult::of(&problem)),
        }
    }
    let outcome = BatchOutcome { accepted: jobs.len(), rejected: count - jobs.len(), results };
    if jobs.is_empty() {
        return Err(outcome.into_problem());
    }
    let response = serde_json::value::to_raw_value(&outcome).expect("an outcome is plain data");
    let idempotency =
        idempotency.map(|known| shared::queue::producer::Idempotency { response: Some(response), ..known });
    match state.producer.enqueue(EnqueueRequest { jobs, idempotency }).await? {
        Enqueued::Created => Ok((StatusCode::ACCEPTED, Json(outcome)).into_response()),
        Enqueued::Replayed { response, .. } => {
            Ok((StatusCode::ACCEPTED, [("idempotency-replayed", "true")], Json(response)).into_response())
        }
        Enqueued::KeyReused => Err(ProblemCode::IdempotencyKeyReused.into()),
    }
}

impl BatchOutcome {
    fn into_problem(self) -> Problem {
        let results = serde_json::to_value(self.results).expect("results are plain data");
        Problem::new(ProblemCode::InvalidBody)
            .detail("no job of the batch is in order; results says why")
            .member("accepted", self.accepted)
            .member("rejected", self.rejected)
            .member("results", results)
    }
}

impl BatchResult {
    fn of(problem: &Problem) -> Self {
        Self::Rejected {
            code: problem.code(),
            detail: problem.detail_text().to_owned(),
            errors: problem.field_errors().to_vec(),
        }
    }
}
