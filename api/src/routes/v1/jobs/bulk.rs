//! `/api/v1/jobs/retry` and `/api/v1/jobs/cancel`: control of all jobs that match a filter, newest
//! first.
//!
//! Invariant: the work is done in chunks of one transaction each, up to a limit that the client
//! sets. A job that changes in the meantime is treated according to its state at that moment, as if
//! it were controlled alone.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::{
    db::TenantTx,
    queue::{
        JobState, announcement,
        control::{self, ControlFilter},
        ledger::JOBS_PER_TRANSACTION,
    },
    tenancy::TenantId,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::control::{closed_kinds, require_kind};
use crate::{
    auth::{JobsControl, Permit},
    extract::{Json, Timestamp, optional_storable},
    problem::Problem,
    state::AppState,
};

const DEFAULT_LIMIT: usize = 1_000;
const MAX_LIMIT: usize = 10_000;

/// A state from which jobs can be retried.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// The job failed too often, or permanently.
    Discarded,
    /// The job was cancelled.
    Cancelled,
}

/// A state from which jobs can be cancelled; a running job is in the state in which it waited.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// The job's time is still to come, or it waits for other jobs.
    Scheduled,
    /// The job waits for a worker.
    Available,
    /// The job failed and waits for its next attempt.
    Retryable,
}

/// A filter for jobs; all given members must match.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManyFilter<S> {
    /// Only jobs in this ledger state.
    state: S,
    /// Only jobs of this kind.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(pattern = r"^[^\x00]*$")]
    kind: Option<String>,
    /// Only jobs in this queue.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(pattern = r"^[^\x00]*$")]
    queue: Option<String>,
    /// Only jobs that became final after this.
    finalized_after: Option<Timestamp>,
    /// Only jobs that became final before this.
    finalized_before: Option<Timestamp>,
    /// Only jobs whose last error contains this text.
    #[serde(default, deserialize_with = "optional_storable")]
    #[schema(pattern = r"^[^\x00]*$")]
    error: Option<String>,
}

/// Jobs to control together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManySubmission<S> {
    /// The filter for the jobs.
    filter: ManyFilter<S>,
    /// Whether to only count the jobs.
    #[serde(default)]
    dry_run: bool,
    /// Maximum number of jobs, newest first: 1 to 10,000; default 1,000.
    #[schema(minimum = 1, maximum = 10000)]
    limit: Option<usize>,
}

/// The result of controlling jobs together.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ManyOutcome {
    /// Jobs that match the filter, counted up to the limit.
    matched: usize,
    /// Jobs that wait again or are cancelled; 0 in a dry run.
    changed: usize,
    /// Jobs left unchanged because another job holds their unique key by now.
    key_held: usize,
    /// Jobs that match the filter but were left out, counted up to the limit: they belong to
    /// campaigns or webhooks, which the API key may not control.
    not_permitted: usize,
}

/// Retries discarded or cancelled jobs.
#[utoipa::path(post, path = "/api/v1/jobs/retry", operation_id = "retry_jobs", tag = "jobs", request_body = ManySubmission<GivenUp>,
    responses((status = 200, body = ManyOutcome, description = "How many jobs matched and how many wait again")))]
pub async fn retry(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Json(submission): Json<ManySubmission<GivenUp>>,
) -> Result<Json<ManyOutcome>, Problem> {
    let mut selection = Selection::new(&permit, &state, submission).await?;
    while let Some((mut transaction, ids)) = selection.next().await? {
        let redriven = control::redrive_all(&mut transaction, &ids).await?;
        transaction.commit().await?;
        announcement::redriven(&state.stores.index, &redriven.done).await;
        selection.outcome.changed += redriven.done.len();
        selection.outcome.key_held += redriven.key_held.len();
    }
    Ok(Json(selection.outcome))
}

/// Cancels waiting and running jobs.
#[utoipa::path(post, path = "/api/v1/jobs/cancel", operation_id = "cancel_jobs", tag = "jobs", request_body = ManySubmission<Unfinished>,
    responses((status = 200, body = ManyOutcome, description = "How many jobs matched and how many are cancelled")))]
pub async fn cancel(
    permit: Permit<JobsControl>,
    State(state): State<AppState>,
    Json(submission): Json<ManySubmission<Unfinished>>,
) -> Result<Json<ManyOutcome>, Problem> {
    let mut selection = Selection::new(&permit, &state, submission).await?;
    while let Some((mut transaction, ids)) = selection.next().await? {
        let (done, follow_up) = control::cancel_all(&mut transaction, &ids).await?;
        transaction.commit().await?;
        announcement::all_cancelled(&state.stores.index, &done).await;
        follow_up.announce(&state.stores.index).await;
        selection.outcome.changed += done.len();
    }
    Ok(Json(selection.outcome))
}

/// Iterates over the jobs that match a filter.
struct Selection<'a> {
    state: &'a AppState,
    tenant: TenantId,
    filter: ControlFilter,
    dry_run: bool,
    limit: usize,
    before: Uuid,
    outcome: ManyOutcome,
}

impl<'a> Selection<'a> {
    async fn new(
        permit: &Permit<JobsControl>,
        state: &'a AppState,
        submission: ManySubmission<impl Into<JobState>>,
    ) -> Result<Self, Problem> {
        let limit = submission.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::invalid("/limit", format!("limit must be 1 to {MAX_LIMIT}")));
        }
        let filter = submission.filter;
        let filter = ControlFilter {
            states: vec![filter.state.into()],
            kind: filter.kind,
            kinds_left_out: closed_kinds(&state.registry, permit),
            queue: filter.queue,
            finalized_after: filter.finalized_after.map(Timestamp::get),
            finalized_before: filter.finalized_before.map(Timestamp::get),
            error: filter.error,
        };
        if let Some(kind) = filter.kind.as_deref() {
            require_kind(&state.registry, permit, kind)?;
        }
        let (tenant, outcome) = (permit.tenant(), ManyOutcome::default());
        let mut new = Self { state, tenant, filter, dry_run: submission.dry_run, limit, before: Uuid::max(), outcome };
        new.count_left_out().await?;
        Ok(new)
    }

    /// Counts the matching jobs that the credential may not control. A filter by kind has passed
    /// the check of that kind.
    async fn count_left_out(&mut self) -> Result<(), Problem> {
        if self.filter.kind.is_some() || self.filter.kinds_left_out.is_empty() {
            return Ok(());
        }
        let mut transaction = self.state.stores.tenants.begin(self.tenant).await?;
        for kind in &self.filter.kinds_left_out {
            let filter = ControlFilter { kind: Some(kind.clone()), kinds_left_out: Vec::new(), ..self.filter.clone() };
            let limit = i64::try_from(self.limit - self.outcome.not_permitted).unwrap_or(i64::MAX);
            self.outcome.not_permitted += control::count_matching(&mut transaction, &filter, limit).await?;
        }
        Ok(())
    }

    /// The next chunk with the transaction in which to change it; `None` at the end, which a dry
    /// run reaches at once.
    async fn next(&mut self) -> Result<Option<(TenantTx, Vec<Uuid>)>, Problem> {
        let mut transaction = self.state.stores.tenants.begin(self.tenant).await?;
        if self.dry_run {
            let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
            self.outcome.matched = control::count_matching(&mut transaction, &self.filter, limit).await?;
            return Ok(None);
        }
        let left = i64::try_from(self.limit - self.outcome.matched).unwrap_or(i64::MAX);
        if left == 0 {
            return Ok(None);
        }
        let size = left.min(JOBS_PER_TRANSACTION);
        let ids = control::next_matching(&mut transaction, &self.filter, self.before, size).await?;
        let Some(last) = ids.last() else { return Ok(None) };
        self.before = *last;
        self.outcome.matched += ids.len();
        Ok(Some((transaction, ids)))
    }
}

impl From<GivenUp> for JobState {
    fn from(state: GivenUp) -> Self {
        match state {
            GivenUp::Discarded => Self::Discarded,
            GivenUp::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Unfinished> for JobState {
    fn from(state: Unfinished) -> Self {
        match state {
            Unfinished::Scheduled => Self::Scheduled,
            Unfinished::Available => Self::Available,
            Unfinished::Retryable => Self::Retryable,
        }
    }
}
