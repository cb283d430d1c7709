//! Reads numbers that processes expose at next to no cost: their metrics, Redis' `INFO`, `/proc`.

use anyhow::Result;
use tests::process::ProcessUnderTest;

use crate::{
    bed::{Bed, Worker},
    figure::Measured,
};

/// Runs that ended as `completed`, by the worker's own counter.
pub async fn completed(worker: &Worker) -> Result<f64> {
    let text = reqwest::get(format!("http://127.0.0.1:{}/metrics", worker.port)).await?.text().await?;
    let counted = text.lines().filter(|line| line.starts_with("rota_jobs_total{") && line.contains("\"completed\""));
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// Bytes that Redis has allocated.
pub async fn redis_memory(bed: &Bed) -> Result<f64> {
    let info: String = bed.redis.command(redis::cmd("INFO").arg("memory")).await?;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap_or_default();
    Ok(line.trim().parse()?)
}

/// The peak memory of a process.
pub fn rss(name: &str, process: &ProcessUnderTest) -> Result<Measured> {
    let mib = process.peak_rss_bytes()? / (1 << 20);
    Ok(Measured::new(name, crate::figure::count(usize::try_from(mib)?), "MiB"))
}
