//! How long finished work is kept.
//!
//! Invariant: only final jobs are deleted, in small statements, so the queue never waits for a clean-up.

use std::time::Duration;

use crate::db::SystemDb;

const BATCH: i64 = 1_000;
const BATCHES: usize = 50;
/// How long a client may repeat a request with the same idempotency key.
const KEEP_KEYS: Duration = Duration::from_hours(24);

/// What a pass removed and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Jobs deleted one by one.
    pub jobs: u64,
    /// Months dropped whole.
    pub partitions_dropped: Vec<String>,
    /// Months made in advance.
    pub partitions_made: i32,
    /// Idempotency keys deleted.
    pub keys: u64,
    /// Batches and unique keys deleted.
    pub ties: u64,
}

/// Makes the coming months' partitions and removes what is older than its time.
pub async fn clean(db: &SystemDb, keep_jobs: Duration) -> Result<RetentionReport, sqlx::Error> {
    let mut report = RetentionReport { partitions_made: ensure_partitions(db).await?, ..RetentionReport::default() };
    let keep = keep_jobs.as_secs_f64();
    report.partitions_dropped = drop_partitions(db, keep).await?;
    for _ in 0..BATCHES {
        let deleted = sqlx::query!(
            "delete from jobs where id in (
               select id from jobs
               where id < uuid_at(now() - make_interval(secs => $1)) and state in ('completed', 'cancelled', 'discarded')
                 and finalized_at < now() - make_interval(secs => $1)
               order by id limit $2)",
            keep,
            BATCH
        )
        .execute(db.pool())
        .await?
        .rows_affected();
        report.jobs += deleted;
        if deleted < BATCH.unsigned_abs() {
            break;
        }
    }
    report.keys = sqlx::query!(
        "delete from idempotency_keys where created_at < now() - make_interval(secs => $1)",
        KEEP_KEYS.as_secs_f64()
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    report.ties = delete_ties(db, keep).await?;
    Ok(report)
}

/// Batches go like jobs; unique keys when their period is over.
async fn delete_ties(db: &SystemDb, keep: f64) -> Result<u64, sqlx::Error> {
    let keys = sqlx::query!("delete from unique_keys where expires_at < now()").execute(db.pool()).await?;
    let batches = sqlx::query!("delete from batches where finished_at < now() - make_interval(secs => $1)", keep)
        .execute(db.pool())
        .await?;
    Ok(keys.rows_affected() + batches.rows_affected())
}

async fn ensure_partitions(db: &SystemDb) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select ensure_job_partitions(3) as "made!""#).fetch_one(db.pool()).await
}

/// A lock that is not free within half a second is left for the next pass.
async fn drop_partitions(db: &SystemDb, keep: f64) -> Result<Vec<String>, sqlx::Error> {
    let dropped =
        sqlx::query_scalar!(r#"select drop_finished_job_partitions(make_interval(secs => $1)) as "name!""#, keep)
            .fetch_all(db.pool())
            .await;
    match dropped {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => Ok(Vec::new()),
        other => other,
    }
}
