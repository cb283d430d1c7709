//! Steering jobs: cancel what is not wanted any more, and redrive what was given up.
//!
//! Invariant: the ledger decides first, in the tenant's transaction; the index is told after the commit. From a cancellation's
//! commit on, no finish of that job matches its row.

use uuid::Uuid;

use super::{Index, JobState, Priority, QueueName, WaitingJob};
use crate::{
    db::TenantTx,
    faults::{self, Point},
    tenancy::TenantId,
};

/// What became of a request to steer a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steered {
    /// It was done.
    Done(Position),
    /// The job's state does not allow it.
    Refused(JobState),
    /// There is no such job.
    NotFound,
}

/// Where the index knows a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The job.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its queue.
    pub queue: QueueName,
    /// Its place among the tenant's jobs.
    pub priority: Priority,
}

/// Cancels a job that is not final. After the commit, call [`announce_cancelled`].
pub async fn cancel(transaction: &mut TenantTx, id: Uuid) -> Result<Steered, sqlx::Error> {
    let row = sqlx::query!(
        "update jobs set state = 'cancelled', finalized_at = now()
         where id = $1 and state in ('scheduled', 'available', 'retryable') returning queue, priority",
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    match row {
        Some(row) => Ok(done(transaction.tenant(), id, &row.queue, row.priority)),
        None => refused(transaction, id).await,
    }
}

/// Makes a discarded or cancelled job wait again, as if it were new but for its number of attempts. After the commit,
/// call [`announce_redriven`].
pub async fn redrive(transaction: &mut TenantTx, id: Uuid) -> Result<Steered, sqlx::Error> {
    let row = sqlx::query!(
        "update jobs set state = 'available', finalized_at = null, run_at = now(), attempt = attempt + 1, failures = 0, crashes = 0
         where id = $1 and state in ('discarded', 'cancelled') returning queue, priority",
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    match row {
        Some(row) => Ok(done(transaction.tenant(), id, &row.queue, row.priority)),
        None => refused(transaction, id).await,
    }
}

/// Takes a cancelled job out of the index and tells its holder. A failure costs nothing but time: the ledger refuses its finish.
pub async fn announce_cancelled(index: &Index, job: &Position) {
    faults::pass(Point::AfterCancelBeforeAnnouncement).await;
    if let Err(error) = index.cancel(&job.queue, &[(job.id, job.tenant, job.priority)]).await {
        tracing::debug!(job_id = %job.id, %error, "the index was not told of a cancellation");
    }
}

/// Makes a redriven job known; if that fails, the scheduler's crawl finds it.
pub async fn announce_redriven(index: &Index, job: &Position, now_ms: i64) {
    let waiting = WaitingJob { id: job.id, tenant: job.tenant, priority: job.priority, run_at_ms: now_ms };
    if let Err(error) = index.push(&job.queue, &[waiting]).await {
        tracing::debug!(job_id = %job.id, %error, "the index was not told of a redriven job");
    }
}

fn done(tenant: TenantId, id: Uuid, queue: &str, priority: i16) -> Steered {
    let queue = queue.parse().expect("the ledger holds valid queue names");
    Steered::Done(Position { id, tenant, queue, priority: Priority::from_ledger(priority) })
}

async fn refused(transaction: &mut TenantTx, id: Uuid) -> Result<Steered, sqlx::Error> {
    let state = sqlx::query_scalar!(r#"select state as "state: JobState" from jobs where id = $1"#, id)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(state.map_or(Steered::NotFound, Steered::Refused))
}
