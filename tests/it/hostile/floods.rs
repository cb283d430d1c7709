//! Dispatch and settlement: jobs of A that take next to no worker time, but each cost a start and
//! an end.
//!
//! Invariant: a flood has ended before B is measured undisturbed again.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::installation::{ApiClient, Installation};
use tokio::time::{Instant, sleep};

use super::unharmed;

/// Jobs per request.
const BATCH: usize = 1_000;
/// A debug build processes only a fraction of a release build's load in the same time.
const SCALE: usize = if cfg!(debug_assertions) { 5 } else { 1 };
/// The limit for a flood, in a debug build on a busy machine.
const LONGEST: Duration = Duration::from_mins(4);
/// The interval between two queries of the ledger, which add load themselves.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Tenant A.
struct Flooder {
    client: ApiClient,
    owner_url: String,
}

impl Flooder {
    fn of(rota: &Installation) -> Self {
        Self { client: rota.tenant.clone(), owner_url: rota.postgres.urls().owner.clone() }
    }

    /// Enqueues this many copies of a job.
    async fn post(&self, jobs: usize, job: &Value) -> Result<()> {
        let batch = json!({ "jobs": vec![job; BATCH] });
        for _ in 0..jobs / BATCH / SCALE {
            self.client.post("jobs/batch", &batch).await?.expect(202)?;
        }
        Ok(())
    }

    /// Waits until no job of this kind waits or runs any more.
    async fn over(&self, kind: &str) -> Result<()> {
        let mut owner = PgConnection::connect(&self.owner_url).await?;
        let deadline = Instant::now() + LONGEST;
        loop {
            let left: i64 = sqlx::query_scalar("select count(*) from jobs where kind = $1 and finalized_at is null")
                .bind(kind)
                .fetch_one(&mut owner)
                .await?;
            if left == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{left} jobs of the flood have not ended");
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Enqueues copies of a job and waits until all have ended, while B works.
async fn flooded(jobs: usize, kind: &str, job: impl Fn() -> Value) -> Result<()> {
    let mut rota = Installation::start().await?;
    let flooder = Flooder::of(&rota);
    unharmed(&mut rota, async || {
        flooder.post(jobs, &job()).await?;
        flooder.over(kind).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_do_nothing() -> Result<()> {
    flooded(20_000, "noop", || json!({ "kind": "noop", "args": {} })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_fail_at_once() -> Result<()> {
    flooded(5_000, "fail", || json!({ "kind": "fail", "args": { "times": 100 }, "max_attempts": 4 })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_panic() -> Result<()> {
    flooded(5_000, "panic", || json!({ "kind": "panic", "args": {}, "max_attempts": 2 })).await
}

/// All jobs become due at once and expire right after: they are leased, read, found expired and
/// discarded without a run, hence without worker time.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_expire_before_they_run() -> Result<()> {
    flooded(10_000, "noop", || {
        let run_at = shared::clock::Clock::system().now() + Duration::from_secs(4);
        json!({ "kind": "noop", "args": {}, "run_at": run_at, "expires_at": run_at + Duration::from_millis(1) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_cancelled_by_filter() -> Result<()> {
    let mut rota = Installation::start().await?;
    let flooder = Flooder::of(&rota);
    unharmed(&mut rota, async || {
        flooder.post(10_000, &json!({ "kind": "sleep", "args": { "ms": 50 } })).await?;
        let cancel = json!({ "filter": { "state": "available", "kind": "sleep" }, "limit": 10_000 });
        flooder.client.post("jobs/cancel", &cancel).await?.expect(200)?;
        flooder.over("sleep").await
    })
    .await
}
