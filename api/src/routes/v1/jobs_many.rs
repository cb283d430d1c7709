//! `/api/v1/jobs/retry` and `/api/v1/jobs/cancel`: steering all jobs that a filter means, the newest first.
//!
//! Invariant: work is done in chunks of one transaction each, up to a limit that the client knows. A job that changes meanwhile
//! is judged by its state at that moment, as if it were steered alone.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::{
    db::TenantTx,
    queue::{
        JobState,
        control::{self, SteerFilter},
    },
    tenancy::TenantId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{JobsControl, Permit},
    extract::{Json, optional_storable},
    problem::{FieldError, Problem, ProblemCode},
    state::AppState,
};

const CHUNK: usize = 500;
const DEFAULT_LIMIT: usize = 1_000;
const MAX_LIMIT: usize = 10_000;

/// Which jobs are meant; all members that are given must fit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManyFilter {
    /// `discarded` or `cancelled` to retry; `scheduled`, `available` or `retryable` to cancel.
    #[schema(value_type = String)]
    state: JobState,
    /// Only this kind.
    #[serde(default, deserialize_with = "optional_storable")]
    kind: Option<String>,
    /// Only this queue.
    #[serde(default, deserialize_with = "optional_storable")]
    queue: Option<String>,
    /// Only jobs that became final after this.
    finalized_after: Option<DateTime<Utc>>,
    /// Only jobs that became final before this.
    finalized_before: Option<DateTime<Utc>>,
    /// Only jobs whose last error contains this text.
    #[serde(default, deserialize_with = "optional_storable")]
    error: Option<String>,
}

/// Jobs to steer together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManySubmission {
    /// Which jobs.
    filter: ManyFilter,
    /// Only count them.
    #[serde(default)]
    dry_run: bool,
    /// How many at most, the newest first: 1 to 10,000; 1,000 if left out.
    #[schema(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
}

/// What was steered.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ManyOutcome {
    /// How many the filter meant, counted up to the limit.
    matched: usize,
    /// How many wait again, or are cancelled; 0 in a dry run.
    changed: usize,
    /// How many were left as they are because another job holds their unique key by now.
    key_held: usize,
}

/// Makes discarded or cancelled jobs run again.
#[utoipa::path(post, path = "/api/v1/jobs/retry", tag = "jobs", request_body = ManySubmission,
    responses((status = 200, body = ManyOutcome, description = "How many were meant and how many wait again")))]
pub async fn retry(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Json(submission): Json<ManySubmission>,
) -> Result<Json<ManyOutcome>, Problem> {
    let mut steering = Steering::new(permit.tenant(), &state, submission, &[JobState::Discarded, JobState::Cancelled])?;
    while let Some((mut transaction, ids)) = steering.next().await? {
        let redriven = control::redrive_all(&mut transaction, &ids).await?;
        transaction.commit().await?;
        control::announce_all_redriven(&state.stores.index, &redriven.done).await;
        steering.outcome.changed += redriven.done.len();
        steering.outcome.key_held += redriven.key_held.len();
    }
    Ok(Json(steering.outcome))
}

/// Cancels waiting and running jobs.
#[utoipa::path(post, path = "/api/v1/jobs/cancel", tag = "jobs", request_body = ManySubmission,
    responses((status = 200, body = ManyOutcome, description = "How many were meant and how many are cancelled")))]
pub async fn cancel(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Json(submission): Json<ManySubmission>,
) -> Result<Json<ManyOutcome>, Problem> {
    let waiting = [JobState::Scheduled, JobState::Available, JobState::Retryable];
    let mut steering = Steering::new(permit.tenant(), &state, submission, &waiting)?;
    while let Some((mut transaction, ids)) = steering.next().await? {
        let (done, aftermath) = control::cancel_all(&mut transaction, &ids).await?;
        transaction.commit().await?;
        control::announce_all_cancelled(&state.stores.index, &done).await;
        aftermath.announce(&state.stores.index).await;
        steering.outcome.changed += done.len();
    }
    Ok(Json(steering.outcome))
}

/// The way through the jobs that a filter means.
struct Steering<'a> {
    state: &'a AppState,
    tenant: TenantId,
    filter: SteerFilter,
    dry_run: bool,
    limit: usize,
    before: Uuid,
    outcome: ManyOutcome,
}

impl<'a> Steering<'a> {
    fn new(
        tenant: TenantId,
        state: &'a AppState,
        submission: ManySubmission,
        allowed: &[JobState],
    ) -> Result<Self, Problem> {
        let limit = submission.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(wrong("/limit", format!("limit is 1 to {MAX_LIMIT}")));
        }
        let filter = submission.filter;
        if !allowed.contains(&filter.state) {
            let words: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
            return Err(wrong("/filter/state", format!("state is one of {}", words.join(", "))));
        }
        let filter = SteerFilter {
            states: vec![filter.state],
            kind: filter.kind,
            queue: filter.queue,
            finalized_after: filter.finalized_after,
            finalized_before: filter.finalized_before,
            error: filter.error,
        };
        let outcome = ManyOutcome::default();
        Ok(Self { state, tenant, filter, dry_run: submission.dry_run, limit, before: Uuid::max(), outcome })
    }

    /// The next chunk with the transaction in which it is to be steered; `None` at the end, which in a dry run is at once.
    async fn next(&mut self) -> Result<Option<(TenantTx, Vec<Uuid>)>, Problem> {
        let mut transaction = self.state.stores.tenants.begin(self.tenant).await?;
        if self.dry_run {
            let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
            self.outcome.matched = control::count_matching(&mut transaction, &self.filter, limit).await?;
            return Ok(None);
        }
        let size = CHUNK.min(self.limit - self.outcome.matched);
        if size == 0 {
            return Ok(None);
        }
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let ids = control::next_matching(&mut transaction, &self.filter, self.before, size).await?;
        let Some(last) = ids.last() else { return Ok(None) };
        self.before = *last;
        self.outcome.matched += ids.len();
        Ok(Some((transaction, ids)))
    }
}

fn wrong(pointer: &str, detail: String) -> Problem {
    Problem::new(ProblemCode::InvalidBody).errors(vec![FieldError { pointer: pointer.into(), detail }])
}
