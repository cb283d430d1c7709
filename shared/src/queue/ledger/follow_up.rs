//! Follow-up work when a job reaches a final state: release its unique key, update its batch,
//! release or cancel its dependents, enqueue webhook deliveries. Every way to become final uses
//! this module: finish, cancellation, poison, expiry.
//!
//! Invariant: the follow-up runs once, in the transaction that makes the job final, because only
//! the statement that moves a job from a waiting to a final state returns it as [`Final`]. Rows are
//! locked in one order everywhere: jobs by id, then unique keys, then batches. [`lock`] locks all
//! jobs that [`settle`] may change, a bounded number, before anything is written. Remaining work is
//! recorded in the same transaction and done by [`crate::queue::control::cascade`]. A job without follow-up flags
//! needs none of this.
//!
//! Next: `follow_up/dependents.rs` and `follow_up/batches.rs` for the statements. Further work in
//! the transaction of a job's end is added as a step of [`settle`], which processes each job once,
//! including those of a cascade.

mod batches;
mod dependents;

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::queue::{
    job::{JobState, Priority, QueueName},
    ledger::{relations::follow_up_flags, webhooks},
    waiting_job::WaitingJob,
};
use crate::tenancy::TenantId;

pub(in crate::queue) use self::batches::reopen;
pub(in crate::queue) use self::dependents::{Locked, STEP, lock};

/// A job that became final in this transaction.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Final {
    pub(in crate::queue) id: Uuid,
    pub(in crate::queue) tenant: Uuid,
    pub(in crate::queue) state: JobState,
    pub(in crate::queue) hooks: i16,
    pub(in crate::queue) unique_key: Option<String>,
    pub(in crate::queue) batch_id: Option<Uuid>,
    /// Dependencies of the job that were still open.
    pub(in crate::queue) waits_for: i16,
}

/// Builds a [`Final`] from a row that an update returned. Each `query!` has its own row type; they
/// have only the columns in common.
macro_rules! final_of {
    ($row:expr) => {
        $crate::queue::ledger::follow_up::Final {
            id: $row.id,
            tenant: $row.tenant_id,
            state: $row.state,
            hooks: $row.hooks,
            unique_key: $row.unique_key,
            batch_id: $row.batch_id,
            waits_for: $row.waits_for,
        }
    };
}
pub(in crate::queue) use final_of;

/// What the index needs to find a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The job's id.
    pub id: Uuid,
    /// The tenant that owns the job.
    pub tenant: TenantId,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority among the tenant's jobs.
    pub priority: Priority,
    /// The last attempt, or the next one if the job waits.
    pub attempt: i32,
    /// Follow-up of its end.
    pub follow_up: FollowUp,
}

/// What must be announced to the index after the commit. Losing it costs time, not jobs: the crawl
/// pushes released jobs, and resolve drops cancelled ones at fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowUp {
    /// Jobs that now wait only for a worker or for their `run_at`.
    pub waiting: Vec<(QueueName, WaitingJob)>,
    /// Jobs that were cancelled because a dependency failed.
    pub cancelled: Vec<Position>,
    /// Jobs with another change that is visible to their followers.
    pub touched: Vec<(QueueName, TenantId, Uuid)>,
}

impl FollowUp {
    /// Adds the results of another step.
    pub fn extend(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.cancelled.extend(other.cancelled);
        self.touched.extend(other.touched);
    }
}

/// Does the follow-up for these jobs. [`lock`] must have been called before they were made final.
pub(in crate::queue) async fn settle(
    connection: &mut PgConnection,
    ended: Vec<Final>,
    locked: &Locked,
) -> Result<FollowUp, sqlx::Error> {
    let mut follow_up = FollowUp::default();
    if ended.is_empty() {
        return Ok(follow_up);
    }
    let related = ended.iter().any(|job| job.hooks != 0 || job.waits_for != 0);
    let ended = if related { settle_relations(connection, ended, locked, &mut follow_up).await? } else { ended };
    raise_events(connection, &ended, &mut follow_up).await?;
    Ok(follow_up)
}

/// Does the follow-up for dependents that were not processed when these jobs ended: they were added
/// later, or left to a cascade. The events of those ends were raised already, so events are raised
/// only for jobs that end as a consequence.
pub(in crate::queue) async fn settle_latecomers(
    connection: &mut PgConnection,
    ended_before: Vec<Final>,
    locked: &Locked,
) -> Result<FollowUp, sqlx::Error> {
    let mut follow_up = FollowUp::default();
    if ended_before.is_empty() {
        return Ok(follow_up);
    }
    let ended_earlier: HashSet<Uuid> = ended_before.iter().map(|job| job.id).collect();
    let mut ended = settle_relations(connection, ended_before, locked, &mut follow_up).await?;
    ended.retain(|job| !ended_earlier.contains(&job.id));
    raise_events(connection, &ended, &mut follow_up).await?;
    Ok(follow_up)
}

/// Raises webhook events for the ended jobs.
async fn raise_events(
    connection: &mut PgConnection,
    ended: &[Final],
    follow_up: &mut FollowUp,
) -> Result<(), sqlx::Error> {
    if !ended.is_empty() {
        let ids: Vec<Uuid> = ended.iter().map(|job| job.id).collect();
        follow_up.waiting.extend(webhooks::raise(connection, &ids).await?);
    }
    Ok(())
}

/// Releases the unique keys, batches and dependents of the ended jobs. Returns all jobs that ended,
/// including those of the cascade.
async fn settle_relations(
    connection: &mut PgConnection,
    ended: Vec<Final>,
    locked: &Locked,
    follow_up: &mut FollowUp,
) -> Result<Vec<Final>, sqlx::Error> {
    let ended = dependents::settle(connection, ended, locked, follow_up).await?;
    release_keys(connection, &ended).await?;
    let completions = batches::count_down(connection, &ended).await?;
    dependents::release(connection, &completions, follow_up).await?;
    Ok(ended)
}

/// Keys held for a period outlive the job; keys held until the end are released.
async fn release_keys(connection: &mut PgConnection, ended: &[Final]) -> Result<(), sqlx::Error> {
    let (mut tenants, mut keys, mut jobs) = (vec![], vec![], vec![]);
    for job in ended.iter().filter(|job| job.hooks & follow_up_flags::UNIQUE_KEY != 0) {
        if let Some(key) = &job.unique_key {
            tenants.push(job.tenant);
            keys.push(key.clone());
            jobs.push(job.id);
        }
    }
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with held as (
           select k.tenant_id, k.key from unnest($1::uuid[], $2::text[], $3::uuid[]) as i (tenant_id, key, job_id)
           join unique_keys k on k.tenant_id = i.tenant_id and k.key = i.key and k.job_id = i.job_id and k.expires_at is null
           order by k.tenant_id, k.key for update of k)
         delete from unique_keys k using held where k.tenant_id = held.tenant_id and k.key = held.key",
        &tenants,
        &keys,
        &jobs
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A row as the index stores it; `None` if its queue name is invalid.
pub(in crate::queue) fn waiting(
    id: Uuid,
    tenant: Uuid,
    queue: &str,
    priority: i16,
    run_at: chrono::DateTime<chrono::Utc>,
) -> Option<(QueueName, WaitingJob)> {
    Some((queue.parse().ok()?, WaitingJob::of_row(id, tenant, priority, run_at)))
}
