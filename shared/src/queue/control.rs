//! Control of jobs: cancel jobs that are no longer wanted, and redrive jobs that were given up; one
//! job, or all that match a filter.
//!
//! Invariant: the ledger is changed first, in the tenant's transaction; the index is updated after
//! the commit. Once a cancellation is committed, no finish of that job matches its row.
//!
//! Next: `control/redrive.rs` for what a redriven job regains, `control/matching.rs` for the
//! filter.

pub mod cascade;
mod matching;
mod redrive;

use uuid::Uuid;

pub use self::matching::{ControlFilter, count_matching, next_matching};
pub use self::redrive::{Redriven, redrive, redrive_all};
use crate::queue::{
    job::{JobState, Priority},
    ledger::follow_up::{self, FollowUp, Position, final_of},
};
use crate::{db::TenantTx, tenancy::TenantId};

/// The result of a control request for one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlOutcome {
    /// The job was cancelled or redriven.
    Done(Position),
    /// The job's state does not allow it.
    Refused(JobState),
    /// Its unique key is now held by this job.
    KeyHeld(Uuid),
    /// Its dependents are still being released or cancelled.
    Settling,
    /// The tenant has no such job.
    NotFound,
}

/// Cancels a job that is not final. After the commit, call [`crate::queue::announcement::cancelled`].
pub async fn cancel(transaction: &mut TenantTx, id: Uuid) -> Result<ControlOutcome, sqlx::Error> {
    let (mut done, follow_up) = cancel_all(transaction, &[id]).await?;
    match done.pop() {
        Some(position) => Ok(ControlOutcome::Done(Position { follow_up, ..position })),
        None => refused(transaction, id).await,
    }
}

/// Cancels those of the jobs that are not final. After the commit, call [`crate::queue::announcement::all_cancelled`], and
/// announce the follow-up.
pub async fn cancel_all(transaction: &mut TenantTx, ids: &[Uuid]) -> Result<(Vec<Position>, FollowUp), sqlx::Error> {
    let locked = follow_up::lock(transaction, ids, &vec![true; ids.len()]).await?;
    let rows = sqlx::query!(
        r#"update jobs j set state = 'cancelled', finalized_at = now()
           where j.id = any($1) and j.state not in ('completed', 'cancelled', 'discarded')
           returning j.id, j.tenant_id, j.queue, j.priority, j.attempt, j.state as "state: JobState", j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        ids
    )
    .fetch_all(&mut **transaction)
    .await?;
    let tenant = transaction.tenant();
    let positions = rows.iter().map(|row| position(tenant, row.id, &row.queue, row.priority, row.attempt)).collect();
    let ended = rows.into_iter().map(|row| final_of!(row));
    let ended = ended.collect();
    Ok((positions, follow_up::settle(transaction, ended, &locked).await?))
}

/// The kind of a job of the tenant; `None` if there is no such job.
pub async fn kind_of(transaction: &mut TenantTx, id: Uuid) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!("select kind from jobs where id = $1", id).fetch_optional(&mut **transaction).await
}

fn position(tenant: TenantId, id: Uuid, queue: &str, priority: i16, attempt: i32) -> Position {
    let queue = queue.parse().expect("the ledger holds valid queue names");
    Position { id, tenant, queue, priority: Priority::from_ledger(priority), attempt, follow_up: FollowUp::default() }
}

async fn refused(transaction: &mut TenantTx, id: Uuid) -> Result<ControlOutcome, sqlx::Error> {
    let state = sqlx::query_scalar!(r#"select state as "state: JobState" from jobs where id = $1"#, id)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(state.map_or(ControlOutcome::NotFound, ControlOutcome::Refused))
}
