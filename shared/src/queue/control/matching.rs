//! Selects the jobs that match a filter, for cancelling or redriving many.
//!
//! Invariant: ids are read in pages of descending order, each page after the end of the previous
//! one, so that a job that cannot be cancelled or redriven is skipped once and not selected again.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{db::TenantTx, queue::JobState};

/// Which jobs are cancelled or redriven together.
#[derive(Clone, Debug)]
pub struct ControlFilter {
    /// Only these ledger states.
    pub states: Vec<JobState>,
    /// Only this kind.
    pub kind: Option<String>,
    /// None of these kinds.
    pub kinds_left_out: Vec<String>,
    /// Only this queue.
    pub queue: Option<String>,
    /// Only jobs that became final after this.
    pub finalized_after: Option<DateTime<Utc>>,
    /// Only jobs that became final before this.
    pub finalized_before: Option<DateTime<Utc>>,
    /// Only jobs whose last error contains this text.
    pub error: Option<String>,
}

/// `$among` names the possible states in the statement, so that a partial index over just those can
/// be used.
macro_rules! matching {
    ($transaction:expr, $filter:expr, $before:expr, $limit:expr, $among:literal) => {{
        let (tenant, states) = (*$transaction.tenant().as_uuid(), $filter.state_names());
        sqlx::query_scalar!(
            "select id from jobs
             where tenant_id = $1 and id < $2 and state = any($3::text[]::job_state[])
               and ($4::text is null or kind = $4) and ($5::text is null or queue = $5)
               and ($6::timestamptz is null or finalized_at > $6) and ($7::timestamptz is null or finalized_at < $7)
               and ($8::text is null or position($8 in errors -> -1 ->> 'error') > 0) and kind <> all($10::text[]) and "
                + $among + " order by id desc limit $9",
            tenant,
            $before,
            &states,
            $filter.kind,
            $filter.queue,
            $filter.finalized_after,
            $filter.finalized_before,
            $filter.error,
            $limit,
            &$filter.kinds_left_out
        )
        .fetch_all(&mut **$transaction)
        .await
    }};
}

/// The newest ids before `before` that match the filter, `limit` at most.
pub async fn next_matching(
    transaction: &mut TenantTx,
    filter: &ControlFilter,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if filter.states.iter().all(|state| matches!(state, JobState::Discarded | JobState::Cancelled)) {
        // Served by the index `jobs_given_up`: completed jobs, the vast majority, are not read.
        return matching!(transaction, filter, before, limit, "state in ('discarded', 'cancelled')");
    }
    matching!(transaction, filter, before, limit, "state in ('scheduled', 'available', 'retryable')")
}

/// Number of jobs that match the filter, counted up to `limit`.
pub async fn count_matching(
    transaction: &mut TenantTx,
    filter: &ControlFilter,
    limit: i64,
) -> Result<usize, sqlx::Error> {
    Ok(next_matching(transaction, filter, Uuid::max(), limit).await?.len())
}

impl ControlFilter {
    fn state_names(&self) -> Vec<String> {
        self.states.iter().map(|state| state.as_str().to_owned()).collect()
    }
}
