//! What the end of a job means for others: its unique key is free, its batch counts it, jobs that waited for it may run or are
//! cancelled, endpoints hear of it. Every way to become final goes through here: finish, cancel, poison, expiry.
//!
//! Invariant: it happens in the transaction that makes the job final, once, because only the statement that takes a job from a
//! waiting to a final state hands it on as [`Final`]. Rows are locked in one order everywhere: jobs by id, then unique keys,
//! then batches. [`lock`] takes all jobs that [`settle`] may touch before anything is changed, a bounded number of them; what is left to do
//! is noted in the same transaction and done by [`super::cascade`]. A job without hooks needs none of this.
//!
//! Next: `aftermath/dependents.rs` and `aftermath/batches.rs` for the statements. Whoever else wants to act on a job's end in
//! its transaction adds a step to [`settle`], which sees each job once, those of a cascade included.

mod batches;
mod dependents;

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Index, JobState, QueueName, WaitingJob,
    control::{self, Position},
    index::by_queue,
    ties::hooks,
    webhooks,
};
use crate::faults::{self, Point};
use crate::tenancy::TenantId;

pub(super) use self::batches::reopen;
pub(super) use self::dependents::{Locked, STEP, lock};

/// A job that became final in this transaction.
#[derive(Clone, Debug)]
pub(super) struct Final {
    pub(super) id: Uuid,
    pub(super) tenant: Uuid,
    pub(super) state: JobState,
    pub(super) hooks: i16,
    pub(super) unique_key: Option<String>,
    pub(super) batch_id: Option<Uuid>,
    /// What it still waited for itself.
    pub(super) waits_for: i16,
}

/// Makes a [`Final`] of a row that an update returned. Each `query!` has a row type of its own; what they share is the columns.
macro_rules! final_of {
    ($row:expr) => {
        $crate::queue::aftermath::Final {
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
pub(super) use final_of;

/// What the index is to be told after the commit. Losing it costs time, not jobs: the crawl and the judge at fetch make up for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Jobs that wait for nothing but a worker or their time any more.
    pub waiting: Vec<(QueueName, WaitingJob)>,
    /// Jobs that were cancelled because one that they waited for failed.
    pub cancelled: Vec<Position>,
    /// Jobs of which something else changed that is shown to those who follow them.
    pub touched: Vec<(QueueName, TenantId, Uuid)>,
}

impl Aftermath {
    /// Adds what another step left.
    pub fn extend(&mut self, other: Self) {
        self.waiting.extend(other.waiting);
        self.cancelled.extend(other.cancelled);
        self.touched.extend(other.touched);
    }

    /// Tells the index.
    pub async fn announce(&self, index: &Index) {
        if *self == Self::default() {
            return;
        }
        faults::pass(Point::AfterAftermathBeforeAnnouncement).await;
        for (queue, jobs) in by_queue(self.waiting.iter().map(|(queue, job)| (queue, *job))) {
            if let Err(error) = index.push(queue, &jobs).await {
                tracing::debug!(%queue, %error, "the index was not told of jobs that stopped waiting");
            }
        }
        if !self.cancelled.is_empty() {
            control::announce_all_cancelled(index, &self.cancelled).await;
        }
        let released = self.waiting.iter().map(|(queue, job)| (queue, (job.id, job.tenant)));
        let touched = self.touched.iter().map(|(queue, tenant, id)| (queue, (*id, *tenant)));
        for (queue, jobs) in by_queue(released.chain(touched)) {
            if let Err(error) = index.announce(queue, &jobs).await {
                tracing::debug!(%queue, %error, "those who follow jobs were not told of a change");
            }
        }
    }
}

/// Does what the ends of these jobs mean for others. [`lock`] was called before they were written.
pub(super) async fn settle(
    connection: &mut PgConnection,
    ended: Vec<Final>,
    locked: &Locked,
) -> Result<Aftermath, sqlx::Error> {
    let mut aftermath = Aftermath::default();
    if ended.is_empty() {
        return Ok(aftermath);
    }
    let tied = ended.iter().any(|job| job.hooks != 0 || job.waits_for != 0);
    let ended = if tied { untie(connection, ended, locked, &mut aftermath).await? } else { ended };
    tell(connection, &ended, &mut aftermath).await?;
    Ok(aftermath)
}

/// For jobs that came to wait for some that had ended before: what that end meant for those that waited then. It has been told of
/// itself already; only the ends that follow from it now are news.
pub(super) async fn settle_latecomers(
    connection: &mut PgConnection,
    ended_before: Vec<Final>,
    locked: &Locked,
) -> Result<Aftermath, sqlx::Error> {
    let mut aftermath = Aftermath::default();
    if ended_before.is_empty() {
        return Ok(aftermath);
    }
    let told: HashSet<Uuid> = ended_before.iter().map(|job| job.id).collect();
    let mut ended = untie(connection, ended_before, locked, &mut aftermath).await?;
    ended.retain(|job| !told.contains(&job.id));
    tell(connection, &ended, &mut aftermath).await?;
    Ok(aftermath)
}

/// Raises events for those who listen.
async fn tell(connection: &mut PgConnection, ended: &[Final], aftermath: &mut Aftermath) -> Result<(), sqlx::Error> {
    if !ended.is_empty() {
        let ids: Vec<Uuid> = ended.iter().map(|job| job.id).collect();
        aftermath.waiting.extend(webhooks::raise(connection, &ids).await?);
    }
    Ok(())
}

/// Frees what the ended jobs held and what waited for them. Returns all that ended, with the cascade.
async fn untie(
    connection: &mut PgConnection,
    ended: Vec<Final>,
    locked: &Locked,
    aftermath: &mut Aftermath,
) -> Result<Vec<Final>, sqlx::Error> {
    let ended = dependents::settle(connection, ended, locked, aftermath).await?;
    release_keys(connection, &ended).await?;
    let completions = batches::count_down(connection, &ended).await?;
    dependents::release(connection, &completions, aftermath).await?;
    Ok(ended)
}

/// Keys held for a period outlive the job; those held until the end are free now.
async fn release_keys(connection: &mut PgConnection, ended: &[Final]) -> Result<(), sqlx::Error> {
    let (mut tenants, mut keys, mut jobs) = (vec![], vec![], vec![]);
    for job in ended.iter().filter(|job| job.hooks & hooks::UNIQUE_KEY != 0) {
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

/// A row as the index wants it; `None` if its queue has a name that no queue can have.
pub(super) fn waiting(
    id: Uuid,
    tenant: Uuid,
    queue: &str,
    priority: i16,
    run_at: chrono::DateTime<chrono::Utc>,
) -> Option<(QueueName, WaitingJob)> {
    Some((queue.parse().ok()?, WaitingJob::of_row(id, tenant, priority, run_at)))
}
