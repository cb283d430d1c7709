//! `/api/v1/jobs/{id}/events`: the changes of a job, as server-sent events.

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{KeepAlive, Sse},
    },
};
use http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
use shared::queue::{QueueName, observe::inspect};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{JobsRead, Permit, Presented},
    extract::Path,
    job_events::{Follower, Snapshot},
    problem::{Problem, ProblemCode},
    state::AppState,
    tenant_counts::Full,
};

const LAST_EVENT_ID: &str = "last-event-id";
/// Seconds to wait before a retry when a stream limit is reached.
const TRY_AGAIN: u64 = 10;

/// One event of a stream of server-sent events (`text/event-stream` of the HTML standard). Before
/// OpenAPI 3.2 the schema of a stream describes each of its events.
#[derive(ToSchema)]
#[schema(example = json!({"event": "job", "id": "5f1d2c0a9b3e47d188aa01c2", "retry": 3000, "data": "{\"state\":\"running\"}"}))]
#[expect(dead_code, reason = "described in the document only: the stream writes its events directly")]
pub struct JobEvent {
    /// `job`.
    event: String,
    /// A version of the job, for `Last-Event-ID`.
    id: String,
    /// Milliseconds to wait before reconnecting after a break.
    retry: u64,
    /// The job as GET shows it, without its args, as JSON.
    data: String,
}

/// Follows a job as a stream of server-sent events.
///
/// The stream begins with the current state of the job, has an event for each change, and ends
/// after the event of the final state. Changes in quick succession may be merged into one event.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", operation_id = "follow_job", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event seen: if the job has not changed since, nothing is sent until it does")),
    responses((status = 200, content_type = "text/event-stream", body = JobEvent, description = "Events named `job`, each with the job as GET shows it, without its args; the event's id is a version of that data"),
        (status = 204, description = "The job is final and the client has its final state: do not reconnect"),
        ))]
pub async fn follow(
    permit: Permit<JobsRead>,
    presented: Presented,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut transaction = state.stores.tenants.begin(permit.tenant()).await?;
    let job = inspect::find(&mut transaction, &state.stores.index, id).await?.ok_or(ProblemCode::NotFound)?;
    drop(transaction);
    let last_event_id = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let snapshot = Snapshot::of(&job);
    if snapshot.is_final && last_event_id.as_ref() == Some(&snapshot.version) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stream = state.events.open(permit.tenant()).map_err(no_stream)?;
    let queue: QueueName = job.queue.parse().map_err(|error| Problem::new(ProblemCode::Internal).caused_by(error))?;
    let heartbeat = KeepAlive::new().interval(state.events.limits().heartbeat);
    let credential = (permit.tenant(), presented);
    let follower = Follower::new(state, stream, credential, (id, queue), last_event_id);
    // No proxy may buffer or cache events.
    let headers = [(CACHE_CONTROL.as_str(), "no-store"), ("x-accel-buffering", "no")];
    Ok((headers, Sse::new(follower.into_stream()).keep_alive(heartbeat)).into_response())
}

fn no_stream(full: Full) -> Problem {
    match full {
        Full::Tenant => Problem::new(ProblemCode::RateLimited)
            .detail("the tenant has reached its limit of open streams; close some, or poll the jobs"),
        Full::Process => Problem::new(ProblemCode::Unavailable),
    }
    .retry_after(TRY_AGAIN)
}
