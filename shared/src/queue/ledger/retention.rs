//! Deletes finished work after its retention period.
//!
//! Invariant: only finished work is deleted, in small statements, so that the queue never waits for
//! a clean-up. Each statement checks the row itself again, in case it was redriven or taken over
//! while the statement waited for it.

use std::{future::Future, time::Duration};

use sqlx::postgres::PgQueryResult;

use crate::db::SystemDb;

const BATCH: i64 = 1_000;
const BATCHES: usize = 50;
/// How long a client may repeat a request with the same idempotency key.
const KEEP_KEYS: Duration = Duration::from_hours(24);
/// How long a session is kept after it expired.
const KEEP_SESSIONS: Duration = Duration::from_hours(30 * 24);
/// How long a tenant can see when its API clients asked for tokens.
const KEEP_CLIENT_USES: Duration = Duration::from_hours(90 * 24);
/// How long a tenant can see the deliveries to its webhook endpoints.
const KEEP_DELIVERIES: Duration = Duration::from_hours(30 * 24);

/// What a pass deleted and created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Jobs deleted row by row.
    pub jobs: u64,
    /// Monthly partitions created in advance.
    pub partitions_made: i32,
    /// Idempotency keys deleted.
    pub keys: u64,
    /// Batches and unique keys deleted.
    pub relations: u64,
    /// Webhook deliveries deleted.
    pub deliveries: u64,
    /// Sessions, and entries of the usage logs of API clients, deleted.
    pub sessions: u64,
}

/// Creates the partitions of the coming months and deletes, row by row, what is past its retention
/// period. Every part is tried, even if an earlier one failed; the first error is returned.
pub async fn clean(db: &SystemDb, keep_jobs: Duration) -> Result<RetentionReport, sqlx::Error> {
    let keep = keep_jobs.as_secs_f64();
    let partitions_made = ensure_partitions(db).await;
    let jobs = delete_jobs(db, keep).await;
    let keys = delete_idempotency_keys(db).await;
    let unique_keys = delete_unique_keys(db).await;
    let batches = delete_batches(db, keep).await;
    let deliveries = delete_deliveries(db).await;
    let sessions = delete_sessions(db).await;
    let client_uses = delete_client_uses(db).await;
    Ok(RetentionReport {
        partitions_made: partitions_made?,
        jobs: jobs?,
        keys: keys?,
        relations: unique_keys? + batches?,
        deliveries: deliveries?,
        sessions: sessions? + client_uses?,
    })
}

/// Drops the partitions of months that ended more than `keep_jobs` ago and contain only finished
/// jobs past retention; returns the partitions' names. This check may read a whole month, so it is
/// separate from [`clean`] and runs less often. If a lock is not free within half a second, the
/// drop is left to the next pass.
pub async fn drop_months(db: &SystemDb, keep_jobs: Duration) -> Result<Vec<String>, sqlx::Error> {
    let keep = keep_jobs.as_secs_f64();
    let dropped =
        sqlx::query_scalar!(r#"select drop_finished_job_partitions(make_interval(secs => $1)) as "name!""#, keep)
            .fetch_all(db.pool())
            .await;
    match dropped {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => Ok(Vec::new()),
        other => other,
    }
}

/// Deletes until less than a full batch is left, up to `BATCHES` batches; the next pass continues.
async fn in_batches<F>(delete: impl Fn() -> F) -> Result<u64, sqlx::Error>
where
    F: Future<Output = Result<PgQueryResult, sqlx::Error>>,
{
    let mut deleted = 0;
    for _ in 0..BATCHES {
        let batch = delete().await?.rows_affected();
        deleted += batch;
        if batch < BATCH.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}

async fn delete_jobs(db: &SystemDb, keep: f64) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from jobs where id in (
               select id from jobs
               where id < uuid_at(now() - make_interval(secs => $1)) and state in ('completed', 'cancelled', 'discarded')
                 and finalized_at < now() - make_interval(secs => $1)
               order by id limit $2)
             and state in ('completed', 'cancelled', 'discarded')",
            keep,
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

async fn delete_idempotency_keys(db: &SystemDb) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from idempotency_keys where (tenant_id, key) in (
               select tenant_id, key from idempotency_keys
               where created_at < now() - make_interval(secs => $1) order by created_at limit $2)",
            KEEP_KEYS.as_secs_f64(),
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

/// Deletes keys whose period is over.
async fn delete_unique_keys(db: &SystemDb) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from unique_keys where (tenant_id, key) in (
               select tenant_id, key from unique_keys where expires_at < now() order by expires_at limit $1)
             and expires_at < now()",
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

/// Batches are kept as long as jobs.
async fn delete_batches(db: &SystemDb, keep: f64) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from batches where (tenant_id, id) in (
               select tenant_id, id from batches
               where finished_at < now() - make_interval(secs => $1) order by finished_at limit $2)",
            keep,
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

async fn delete_deliveries(db: &SystemDb) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from webhook_deliveries where (tenant_id, id) in (
               select tenant_id, id from webhook_deliveries
               where created_at < now() - make_interval(secs => $1) order by created_at limit $2)",
            KEEP_DELIVERIES.as_secs_f64(),
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

/// A session of a user who stays signed in never expires: each refresh extends it.
async fn delete_sessions(db: &SystemDb) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from sessions where (tenant_id, id) in (
               select tenant_id, id from sessions
               where expires_at < now() - make_interval(secs => $1) order by expires_at limit $2)",
            KEEP_SESSIONS.as_secs_f64(),
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

async fn delete_client_uses(db: &SystemDb) -> Result<u64, sqlx::Error> {
    in_batches(|| {
        sqlx::query!(
            "delete from api_client_uses where (tenant_id, id) in (
               select tenant_id, id from api_client_uses
               where used_at < now() - make_interval(secs => $1) order by used_at limit $2)",
            KEEP_CLIENT_USES.as_secs_f64(),
            BATCH
        )
        .execute(db.pool())
    })
    .await
}

async fn ensure_partitions(db: &SystemDb) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select ensure_job_partitions(3) as "made!""#).fetch_one(db.pool()).await
}
