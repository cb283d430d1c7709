//! Campaigns that are scheduled or being sent, and whether a job still sends them.
//!
//! Invariant: a start changes the campaign and inserts its job in one transaction. A campaign under
//! way without a waiting or running job of its generation has therefore lost it: the job was
//! cancelled or discarded separately, or its row is gone.

use uuid::Uuid;

use crate::{
    db::{SystemDb, TenantTx},
    queue::JobState,
    tenancy::TenantId,
};

/// A campaign that no job sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// The campaign's tenant.
    pub tenant: TenantId,
    /// The campaign's id.
    pub id: Uuid,
}

/// Kind and queue of the jobs that send campaigns.
#[derive(Clone, Copy, Debug)]
pub struct SendingJobs {
    /// Their kind.
    pub kind: &'static str,
    /// Their queue.
    pub queue: &'static str,
}

/// How the job of a campaign's latest start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The job has not ended, or the campaign is not under way.
    Not,
    /// The job is in this final state.
    With(Uuid, JobState),
    /// The job is unknown.
    Lost,
}

/// Campaigns of all tenants that no job sends, at most `limit`.
pub async fn stranded(db: &SystemDb, jobs: SendingJobs, limit: i64) -> Result<Vec<Stranded>, sqlx::Error> {
    let rows = sqlx::query!(
        "select c.tenant_id, c.id from campaigns c
         where c.state in ('scheduled', 'sending') and not exists (
           select from jobs j
           where j.queue = $1 and j.kind = $2 and j.state in ('scheduled', 'available', 'retryable') and j.tenant_id = c.tenant_id
             and j.args ->> 'campaign_id' = c.id::text and j.args ->> 'generation' = c.send_generation::text)
         order by c.id limit $3",
        jobs.queue,
        jobs.kind,
        limit
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows.into_iter().map(|row| Stranded { tenant: TenantId::new(row.tenant_id), id: row.id }).collect())
}

/// Locks a campaign and returns how the job that sends it ended.
pub async fn lock(transaction: &mut TenantTx, id: Uuid, jobs: SendingJobs) -> Result<Ended, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let campaign = sqlx::query!(
        "select send_job_id, send_generation from campaigns
         where tenant_id = $1 and id = $2 and state in ('scheduled', 'sending') for update",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(campaign) = campaign else { return Ok(Ended::Not) };
    let (campaign_id, generation) = (id.to_string(), campaign.send_generation.to_string());
    // After the lock, so that a start that has just committed is visible together with its job.
    let is_sent = sqlx::query_scalar!(
        r#"select exists (select from jobs
             where queue = $1 and kind = $2 and state in ('scheduled', 'available', 'retryable') and tenant_id = $3
               and args ->> 'campaign_id' = $4 and args ->> 'generation' = $5) as "is_sent!""#,
        jobs.queue,
        jobs.kind,
        tenant,
        campaign_id,
        generation
    )
    .fetch_one(&mut **transaction)
    .await?;
    if is_sent {
        return Ok(Ended::Not);
    }
    // A release that does not store the job id may have started the campaign since; the stored job
    // then has another generation.
    let ended = sqlx::query!(
        r#"select id, state as "state: JobState" from jobs where id = $1 and tenant_id = $2 and args ->> 'generation' = $3"#,
        campaign.send_job_id,
        tenant,
        generation
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(ended.map_or(Ended::Lost, |job| Ended::With(job.id, job.state)))
}

/// Pauses a campaign under way, with a reason.
pub async fn pause(transaction: &mut TenantTx, id: Uuid, reason: &str) -> Result<(), sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query!(
        "update campaigns set state = 'paused', pause_reason = 'job_ended', pause_detail = $3
         where tenant_id = $1 and id = $2 and state in ('scheduled', 'sending')",
        tenant,
        id,
        reason
    )
    .execute(&mut **transaction)
    .await
    .map(drop)
}
