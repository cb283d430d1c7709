//! `tests/it/queue/faults/latency.rs` at full size: slow links are the only fault, and every effect
//! happens once.
//!
//! First each link is slow in turn, then all of them, then Redis stalls while jobs run and are
//! enqueued, then all links are slow under many jobs. Exit status 1 if anything ran twice, took a
//! second attempt or left the index inconsistent. `cargo build --release --workspace
//! --bins && cargo run --release -p tests --example latency`

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use tests::{
    installation::{Installation, InstallationOptions},
    latency::{SlowLinks, round},
    tcp_proxy::Mode,
};

const DELAYS_MS: [u64; 4] = [1, 5, 20, 50];
const ALL_LINKS: Duration = Duration::from_millis(20);
const STALL: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(about = "Run jobs over slow links and count their effects")]
struct Arguments {
    /// Jobs per link and delay, and around the stall
    #[arg(long, default_value_t = 150)]
    jobs: usize,
    /// Run time of a job, in ms
    #[arg(long, default_value_t = 300)]
    run_ms: u64,
    /// Jobs with 10 ms on all links
    #[arg(long, default_value_t = 20_000)]
    all: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { jobs, run_ms, all } = Arguments::parse();
    let env = vec![("ROTA_LEASE_MS", "30000".to_owned()), ("WORKER_CONCURRENCY", "50".to_owned())];
    let mut rota =
        Installation::start_with(InstallationOptions { workers: 2, env, ..InstallationOptions::default() }).await?;
    let mut slow = SlowLinks::new(&rota).await?;
    let run = Duration::from_millis(run_ms);
    for (name, proxy) in rota.links.all() {
        for delay_ms in DELAYS_MS {
            let began = Instant::now();
            proxy.set(Mode::Delay(Duration::from_millis(delay_ms)));
            round(&mut slow, &format!("{name}-{delay_ms}"), jobs, run).await?;
            proxy.set(Mode::Pass);
            slow.ensure_once().await?;
            say(&format!("{name} {delay_ms} ms: {jobs} jobs once, in {:.1} s", began.elapsed().as_secs_f64()))?;
        }
    }
    let began = Instant::now();
    rota.links.set_all(Mode::Delay(ALL_LINKS));
    round(&mut slow, "all-links", jobs, run).await?;
    rota.links.set_all(Mode::Pass);
    slow.ensure_once().await?;
    say(&format!("all links {ALL_LINKS:?}: {jobs} jobs once, in {:.1} s", began.elapsed().as_secs_f64()))?;
    stall(&mut rota, &mut slow, jobs, run).await?;
    let began = Instant::now();
    rota.links.set_all(Mode::Delay(Duration::from_millis(10)));
    slow.enqueue_batches("all", all).await?;
    slow.ensure_once().await?;
    say(&format!("all links 10 ms: {all} jobs once, in {:.1} s", began.elapsed().as_secs_f64()))
}

/// Stops Redis for [`STALL`] between two halves of the jobs: the first half runs, the second is
/// committed while Redis does not respond.
async fn stall(rota: &mut Installation, slow: &mut SlowLinks, jobs: usize, run: Duration) -> Result<()> {
    let began = Instant::now();
    let before = slow.enqueue("before-the-stall", jobs / 2, run).await?;
    rota.redis.pause()?;
    let end = tokio::time::Instant::now() + STALL;
    let meanwhile = slow.enqueue("during-the-stall", jobs - jobs / 2, run).await?;
    tokio::time::sleep_until(end).await;
    rota.redis.resume()?;
    for token in before.iter().chain(&meanwhile) {
        slow.arrives(token).await;
    }
    slow.ensure_once().await?;
    say(&format!("Redis stalled {STALL:?}: {jobs} jobs once, in {:.1} s", began.elapsed().as_secs_f64()))
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
