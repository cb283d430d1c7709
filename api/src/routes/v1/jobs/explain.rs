//! `/api/v1/jobs/{id}/explain`: why a job waits.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::queue::{
    observe::explain::{self, Explanation, Reason},
    observe::inspect::ShownState,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{JobsRead, Permit},
    extract::{Json, Path},
    problem::{Problem, ProblemCode},
    state::AppState,
};

/// Why a job waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobExplanation {
    /// The job's id.
    id: Uuid,
    /// The state, as the job itself shows it.
    #[schema(value_type = ShownState)]
    state: &'static str,
    /// Null for a job that runs or is final.
    reason: Option<Reason>,
    /// The reason in words.
    detail: String,
    /// The position among your jobs in its queue that could start, from 1.
    position: Option<u64>,
    /// How many of those jobs come before it.
    ahead_of_it: Option<u64>,
    /// The earliest start.
    run_at: DateTime<Utc>,
    /// The estimated start under current conditions; null if it does not depend on time alone.
    estimated_start_at: Option<DateTime<Utc>>,
}

/// Explains why a job waits, with one reason, and estimates its start.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/explain", operation_id = "explain_job", tag = "jobs", params(("id" = Uuid, Path, description = "The job's id")),
    responses((status = 200, body = JobExplanation, description = "The reason why the job waits")))]
pub async fn explain(
    permit: Permit<JobsRead>,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<JobExplanation>, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let explanation = explain::explain(&mut transaction, &state.stores.index, id).await?;
    explanation.map(|explanation| Json(explanation.into())).ok_or_else(|| ProblemCode::NotFound.into())
}

impl From<Explanation> for JobExplanation {
    fn from(explanation: Explanation) -> Self {
        let Explanation { id, state, reason, detail, position, ahead_of_it, run_at, estimated_start_at } = explanation;
        Self { id, state, reason, detail, position, ahead_of_it, run_at, estimated_start_at }
    }
}
