//! Discards expired jobs that no worker runs.
//!
//! Invariant: a job that is leased is left to its holder, so a run that started in time is not
//! affected.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::queue::{
    index::{Index, status::IndexState},
    job::QueueName,
    ledger::{
        JOBS_PER_TRANSACTION,
        expiry::{self, Expired},
        follow_up::FollowUp,
    },
    store_error::StoreError,
};
use crate::{
    db::{self, SystemDb},
    tenancy::TenantId,
};

/// Discards expired jobs that are not running; returns their number.
pub async fn sweep(db: &SystemDb, index: &Index) -> Result<u64, StoreError> {
    let (mut after, mut discarded) = ((DateTime::<Utc>::UNIX_EPOCH, Uuid::nil()), 0);
    loop {
        let page = expiry::page(db, after).await?;
        let Some(last) = page.last() else { return Ok(discarded) };
        after = (last.expires_at, last.id);
        let is_last = i64::try_from(page.len()) != Ok(JOBS_PER_TRANSACTION);
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
    match expiry::discard(db, &ids).await {
        Err(error) if db::is_lock_held(&error) => {}
        result => return result,
    }
    let mut by_tenant = BTreeMap::<TenantId, Vec<Uuid>>::new();
    for (id, tenant) in jobs {
        by_tenant.entry(*tenant).or_default().push(*id);
    }
    let (mut count, mut follow_up) = (0, FollowUp::default());
    for (tenant, ids) in by_tenant {
        match expiry::discard(db, &ids).await {
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
