//! Jobs that expired before a run started: they are discarded, never run.
//!
//! Invariant: no run starts after `expires_at` by the ledger's clock. Resolve enforces this at
//! fetch; the sweep ([`crate::queue::repair::expiry`]) only makes the end visible in time and does the
//! follow-up. A run that has
//! started is not affected, however long it takes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::queue::{
    job::JobState,
    ledger::{
        JOBS_PER_TRANSACTION,
        follow_up::{self, FollowUp, final_of},
    },
};
use crate::{db::SystemDb, telemetry::names, tenancy::TenantId};

/// An expired job that waits or runs.
pub(in crate::queue) struct Expired {
    pub(in crate::queue) id: Uuid,
    pub(in crate::queue) tenant_id: Uuid,
    pub(in crate::queue) queue: String,
    pub(in crate::queue) expires_at: DateTime<Utc>,
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

/// The next page of expired jobs, in the order of the index `jobs_expiring`, including the id: a page reads only the rows that it
/// returns, however many jobs share an instant.
pub(in crate::queue) async fn page(db: &SystemDb, after: (DateTime<Utc>, Uuid)) -> Result<Vec<Expired>, sqlx::Error> {
    sqlx::query_as!(
        Expired,
        r#"select id, tenant_id, queue, expires_at as "expires_at!" from jobs
           where expires_at is not null and state in ('scheduled', 'available', 'retryable')
             and expires_at <= now() and (expires_at, id) > ($1, $2)
           order by expires_at, id limit $3"#,
        after.0,
        after.1,
        JOBS_PER_TRANSACTION
    )
    .fetch_all(db.pool())
    .await
}
