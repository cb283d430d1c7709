//! `/api/v1/job-kinds`: the kinds that can be submitted.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    auth::{JobsRead, Permit},
    extract::Json,
    state::AppState,
};

/// A job kind.
#[derive(Serialize, ToSchema)]
pub struct JobKindView {
    /// Its name.
    kind: &'static str,
    /// What it does.
    description: &'static str,
    /// The queue in which its jobs wait.
    queue: String,
    /// Failures after which a job is discarded, unless the job sets another number.
    max_attempts: i16,
    /// Time limit of a run, in seconds.
    timeout_seconds: u64,
    /// The JSON schema of its args.
    #[schema(value_type = Object)]
    args_schema: serde_json::Value,
}

/// All kinds.
#[derive(Serialize, ToSchema)]
pub struct JobKinds {
    items: Vec<JobKindView>,
}

/// Lists the job kinds with the schemas of their args.
#[utoipa::path(get, path = "/api/v1/job-kinds", operation_id = "list_job_kinds", tag = "jobs", responses((status = 200, body = JobKinds, description = "All kinds")))]
pub async fn list(_permit: Permit<JobsRead>, State(state): State<AppState>) -> Json<JobKinds> {
    let items = state.registry.submittable().map(|kind| JobKindView {
        kind: kind.name,
        description: kind.description,
        queue: kind.queue.to_string(),
        max_attempts: kind.max_attempts,
        timeout_seconds: kind.timeout.as_secs(),
        args_schema: kind.schema.clone(),
    });
    Json(JobKinds { items: items.collect() })
}
