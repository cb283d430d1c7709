//! Backlogs that exist before the measurement begins: written directly to the ledger, and brought
//! into the index by a rebuild.

use std::time::{Duration, Instant};

use anyhow::Result;
use shared::queue::{Index, QueueName};
use sqlx::PgConnection;
use tests::{eventually::eventually, sql::id_at};
use uuid::Uuid;

use crate::bed::Bed;

const PATIENCE: Duration = Duration::from_mins(10);

/// Commits jobs of one kind, spread evenly over the tenants, with ids in order of time like the
/// producer's. In `args`, `NUMBER` stands for the nine digits of the job's number.
pub async fn commit(owner: &mut PgConnection, tenants: &[Uuid], jobs: usize, kind: &str, args: &str) -> Result<()> {
    let statement = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, priority, max_attempts, state)
         select {}, ($1::uuid[])[1 + n % array_length($1, 1)], 'default', $2, replace($3, 'NUMBER', lpad(n::text, 9, '0'))::json, 2, 20, 'available'
         from generate_series(0, $4 - 1) as n",
        id_at("clock_timestamp()")
    );
    let statement = sqlx::AssertSqlSafe(statement);
    sqlx::query(statement).bind(tenants).bind(kind).bind(args).bind(i32::try_from(jobs)?).execute(&mut *owner).await?;
    sqlx::query("vacuum analyze jobs").execute(owner).await?;
    Ok(())
}

/// Deletes the index, waits until it is rebuilt, and returns how long that took, including the
/// grace of the holders.
pub async fn rebuild_index(bed: &Bed) -> Result<Duration> {
    let started = Instant::now();
    bed.redis.flush_all().await?;
    bed.index_is_whole().await?;
    Ok(started.elapsed())
}

/// Waits until this many jobs are available.
pub async fn indexed(bed: &Bed, queues: &[QueueName], jobs: usize) -> Result<()> {
    let index = bed.index()?;
    eventually(PATIENCE, "every job is in the index", async || {
        let waiting = waiting(&index, queues).await.ok()?;
        (usize::try_from(waiting) == Ok(jobs)).then_some(())
    })
    .await;
    Ok(())
}

/// The number of jobs waiting in the flows of these queues.
pub async fn waiting(index: &Index, queues: &[QueueName]) -> Result<u64> {
    let mut waiting = 0;
    for queue in queues {
        waiting += index.depth(queue).await?.available;
    }
    Ok(waiting)
}

/// Waits until the ledger has this many finished jobs. Polls rarely, because counting adds load.
pub async fn finished(owner: &mut PgConnection, jobs: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let finished: i64 = sqlx::query_scalar("select count(*) from jobs where finalized_at is not null")
            .fetch_one(&mut *owner)
            .await?;
        if usize::try_from(finished)? >= jobs {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{finished} of {jobs} jobs finished");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The rate at which jobs finished, from the `from`th to the `to`th, by the ledger's times.
pub async fn rate(owner: &mut PgConnection, from: usize, to: usize) -> Result<f64> {
    let seconds: f64 = sqlx::query_scalar(
        "select extract(epoch from max(at) - min(at))::float8
         from (select finalized_at as at from jobs where finalized_at is not null order by finalized_at offset $1 limit $2) t",
    )
    .bind(i64::try_from(from)?)
    .bind(i64::try_from(to - from)?)
    .fetch_one(owner)
    .await?;
    Ok(crate::figure::count(to - from) / seconds)
}
