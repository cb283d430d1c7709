//! The rate at which one worker drains a backlog of jobs that do nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    arguments::Size,
    backlog,
    bed::{Bed, queue},
    figure::{Measured, count},
    load::{ARGS, batches},
    scrape::{self, rss},
};

const SLOTS: usize = 100;

/// During the drain only the worker's own counter is read; the ledger is counted once at the end,
/// and its times give the rate.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let items = [format!(r#"{{"kind":"noop","args":{ARGS}}}"#)];
    batches(bed.port, &bed.tenants[0].api_key, size.jobs, &items).await?;
    backlog::indexed(bed, &[queue()], size.jobs).await?;
    let mut owner = bed.owner().await?;
    sqlx::query("vacuum analyze jobs").execute(&mut owner).await?;
    let worker = bed.worker(SLOTS).await?;
    while scrape::completed(&worker).await? < count(size.jobs) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    backlog::finished(&mut owner, size.jobs).await?;
    let repeated: i64 = sqlx::query_scalar("select count(*) from jobs where attempt > 1").fetch_one(&mut owner).await?;
    ensure!(repeated == 0, "{repeated} jobs ran more than once");
    let rate = backlog::rate(&mut owner, 0, size.jobs).await?;
    Ok(vec![
        Measured::new("drain of noop, 1 worker, 100 slots", rate, "jobs/s").at_least(25_000.0),
        rss("  worker peak RSS", &worker.process)?,
        rss("  scheduler peak RSS", &bed.scheduler)?,
    ])
}
