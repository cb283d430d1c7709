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
    CancelledJob, Index, JobState, Priority, QueueName, WaitingJob,
    index::by_queue,
    ledger::follow_up::{self, FollowUp, final_of},
};
use crate::{
    db::TenantTx,
    faults::{self, Point},
    tenancy::TenantId,
};

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

/// Cancels a job that is not final. After the commit, call [`announce_cancelled`].
pub async fn cancel(transaction: &mut TenantTx, id: Uuid) -> Result<ControlOutcome, sqlx::Error> {
    let (mut done, follow_up) = cancel_all(transaction, &[id]).await?;
    match done.pop() {
        Some(position) => Ok(ControlOutcome::Done(Position { follow_up, ..position })),
        None => refused(transaction, id).await,
    }
}

/// Cancels those of the jobs that are not final. After the commit, call [`announce_cancelled`] for
/// each, and announce the follow-up.
pub async fn cancel_all(transaction: &mut TenantTx, ids: &[Uuid]) -> Result<(Vec<Position>, FollowUp), sqlx::Error> {
    let locked = follow_up::lock(transaction, ids, &vec![true; ids.len()]).await?;
    let rows = sqlx::query!(
        r#"update jobs j set state = 'cancelled', finalized_at = now()
           from (select id from unnest($1::uuid[]) as t (id) order by id) i
           where j.id = i.id and j.state not in ('completed', 'cancelled', 'discarded')
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

/// Removes a cancelled job from the index and notifies its holder. A failure costs only time: the
/// ledger refuses the holder's finish.
pub async fn announce_cancelled(index: &Index, job: &Position) {
    faults::pass(Point::AfterCancelBeforeAnnouncement).await;
    if let Err(error) = index.cancel(&job.queue, &[job.cancelled()]).await {
        tracing::debug!(job_id = %job.id, %error, "failed to announce a cancellation to the index");
    }
    job.follow_up.announce(index).await;
}

/// Pushes a redriven job to the index; if that fails, the scheduler's crawl pushes it.
pub async fn announce_redriven(index: &Index, job: &Position) {
    if let Err(error) = index.push(&job.queue, &[job.waiting()]).await {
        tracing::debug!(job_id = %job.id, %error, "failed to push a redriven job to the index");
    }
    announce_changed(index, &job.queue, &[(job.id, job.tenant)]).await;
}

/// Removes cancelled jobs from the index and notifies their holders.
pub async fn announce_all_cancelled(index: &Index, jobs: &[Position]) {
    for (queue, jobs) in by_queue(jobs.iter().map(|job| (&job.queue, job))) {
        let told: Vec<_> = jobs.iter().map(|job| job.cancelled()).collect();
        if let Err(error) = index.cancel(queue, &told).await {
            tracing::debug!(%queue, %error, "failed to announce cancellations to the index");
        }
    }
}

/// Pushes redriven jobs to the index; if that fails, the scheduler's crawl pushes them.
pub async fn announce_all_redriven(index: &Index, jobs: &[Position]) {
    for (queue, jobs) in by_queue(jobs.iter().map(|job| (&job.queue, job))) {
        let waiting: Vec<WaitingJob> = jobs.iter().map(|job| job.waiting()).collect();
        if let Err(error) = index.push(queue, &waiting).await {
            tracing::debug!(%queue, %error, "failed to push redriven jobs to the index");
        }
        let changed: Vec<_> = waiting.iter().map(|job| (job.id, job.tenant)).collect();
        announce_changed(index, queue, &changed).await;
    }
}

/// Notifies followers of the jobs; without the notification they see the change at their next read.
async fn announce_changed(index: &Index, queue: &QueueName, jobs: &[(Uuid, TenantId)]) {
    if let Err(error) = index.announce(queue, jobs).await {
        tracing::debug!(%queue, %error, "failed to notify followers of a job change");
    }
}

impl Position {
    const fn cancelled(&self) -> CancelledJob {
        CancelledJob { id: self.id, tenant: self.tenant, priority: self.priority, attempt: self.attempt }
    }

    /// The job as waiting again, ready to run at once.
    const fn waiting(&self) -> WaitingJob {
        WaitingJob { id: self.id, tenant: self.tenant, priority: self.priority, run_at_ms: None }
    }
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
