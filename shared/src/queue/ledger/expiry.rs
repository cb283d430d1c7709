//! Jobs that expired before a run started: they are discarded, never run.
//!
//! Invariant: no run starts after `expires_at` by the ledger's clock. Resolve enforces this at
//! fetch; the sweep only makes the end visible in time and does the follow-up. A run that has
//! started is not affected, however long it takes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::queue::{
    Index, IndexState, JobState, QueueName,
    ledger::follow_up::{self, FollowUp, final_of},
};
use crate::{
    db::{self, SystemDb},
    telemetry::names,
    tenancy::TenantId,
};

const BATCH: i64 = 500;

/// Why a sweep failed.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// Redis did not answer, so it is unknown which jobs are running.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// PostgreSQL did not answer.
    #[error("ledger: {0}")]
    Ledger(#[from] sqlx::Error),
}

struct Expired {
    id: Uuid,
    tenant_id: Uuid,
    queue: String,
    expires_at: DateTime<Utc>,
}

/// Discards expired jobs that are not running; returns their number.
pub async fn sweep(db: &SystemDb, index: &Index) -> Result<u64, ExpiryError> {
    let (mut after, mut discarded) = ((DateTime::<Utc>::UNIX_EPOCH, Uuid::nil()), 0);
    loop {
        let page = page(db, after).await?;
        let Some(last) = page.last() else { return Ok(discarded) };
        after = (last.expires_at, last.id);
        let is_last = i64::try_from(page.len()) != Ok(BATCH);
        let jobs = not_running(index, page).await?;
        let (ended, follow_up) = discard_all(db, &jobs).await?;
        discarded += ended;
        follow_up.announce(index).await;
        if is_last {
            return Ok(discarded);
        }
    }
}

/// Discards the jobs of all tenants at once; if that hits a lock, tenant by tenant, and locked jobs
/// are left to the next sweep.
async fn discard_all(db: &SystemDb, jobs: &[(Uuid, TenantId)]) -> Result<(u64, FollowUp), sqlx::Error> {
    let ids: Vec<Uuid> = jobs.iter().map(|(id, _)| *id).collect();
    match discard(db, &ids).await {
        Err(error) if db::is_lock_held(&error) => {}
        result => return result,
    }
    let mut by_tenant = BTreeMap::<TenantId, Vec<Uuid>>::new();
    for (id, tenant) in jobs {
        by_tenant.entry(*tenant).or_default().push(*id);
    }
    let (mut count, mut follow_up) = (0, FollowUp::default());
    for (tenant, ids) in by_tenant {
        match discard(db, &ids).await {
            Ok((ended, part)) => {
                count += ended;
                follow_up.extend(part);
            }
            Err(error) if db::is_lock_held(&error) => {
                tracing::debug!(%tenant, %error, "expired jobs of a tenant are locked; the next sweep will retry");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((count, follow_up))
}

/// Discards those of the jobs that have expired. The caller must know that they are not running.
/// Returns their number.
pub(in crate::queue) async fn discard(db: &SystemDb, ids: &[Uuid]) -> Result<(u64, FollowUp), sqlx::Error> {
    if ids.is_empty() {
        return Ok((0, FollowUp::default()));
    }
    let mut transaction = db.pool().begin().await?;
    let locked = follow_up::lock(&mut transaction, ids, &vec![true; ids.len()]).await?;
    let rows = sqlx::query!(
        r#"update jobs j set state = 'discarded', finalized_at = now(),
             errors = coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', now(),
                 'error', 'expired: it was not to be started after its expires_at')
           from (select id from unnest($1::uuid[]) as t (id) order by id) i
           where j.id = i.id and j.state not in ('completed', 'cancelled', 'discarded') and j.expires_at <= now()
           returning j.id, j.tenant_id, j.queue, j.kind, j.state as "state: JobState", j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        ids
    )
    .fetch_all(&mut *transaction)
    .await?;
    for row in &rows {
        metrics::counter!(names::JOBS_TOTAL, "queue" => row.queue.clone(), "kind" => row.kind.clone(), "outcome" => "expired")
            .increment(1);
    }
    let count = rows.len() as u64;
    let expired: Vec<_> =
        rows.iter().filter_map(|row| Some((row.queue.parse().ok()?, TenantId::new(row.tenant_id), row.id))).collect();
    let ended = rows.into_iter().map(|row| final_of!(row));
    let mut follow_up = follow_up::settle(&mut transaction, ended.collect(), &locked).await?;
    transaction.commit().await?;
    follow_up.touched.extend(expired);
    Ok((count, follow_up))
}

/// In the order of the index `jobs_expiring`, including the id: a page reads only the rows that it
/// returns, however many jobs share an instant.
async fn page(db: &SystemDb, after: (DateTime<Utc>, Uuid)) -> Result<Vec<Expired>, sqlx::Error> {
    sqlx::query_as!(
        Expired,
        r#"select id, tenant_id, queue, expires_at as "expires_at!" from jobs
           where expires_at is not null and state in ('scheduled', 'available', 'retryable')
             and expires_at <= now() and (expires_at, id) > ($1, $2)
           order by expires_at, id limit $3"#,
        after.0,
        after.1,
        BATCH
    )
    .fetch_all(db.pool())
    .await
}

async fn not_running(index: &Index, page: Vec<Expired>) -> Result<Vec<(Uuid, TenantId)>, redis::RedisError> {
    let mut queues: Vec<String> = page.iter().map(|job| job.queue.clone()).collect();
    queues.sort_unstable();
    queues.dedup();
    let mut idle = Vec::with_capacity(page.len());
    for queue in queues {
        let jobs = page.iter().filter(|job| job.queue == queue);
        let jobs: Vec<_> = jobs.map(|job| (job.id, TenantId::new(job.tenant_id))).collect();
        let Ok(name) = queue.parse::<QueueName>() else { continue };
        let before = index.status(&name).await?;
        let leased = index.leased(&name, &jobs).await?;
        let after = index.status(&name).await?;
        // An index that was lost or is being rebuilt does not know all leases; the next sweep
        // checks again.
        if [before.state, after.state] != [IndexState::Ready; 2] || before.epoch != after.epoch {
            continue;
        }
        idle.extend(jobs.into_iter().zip(leased).filter(|(_, leased)| !leased).map(|(job, _)| job));
    }
    Ok(idle)
}
