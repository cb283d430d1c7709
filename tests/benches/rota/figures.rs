//! One function for each figure.

use std::{
    future::Future,
    io::Write as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use tests::{eventually::eventually, http_sink::HttpSink};
use tokio::task::JoinSet;

use crate::{
    bed::Bed,
    client::{Client, post},
};

type Take = for<'a> fn(&'a mut Bed, usize) -> Pin<Box<dyn Future<Output = Result<Vec<Figure>>> + 'a>>;

/// All figures by name.
pub const ALL: [(&str, Take); 6] = [
    ("enqueue", |bed, jobs| Box::pin(enqueue(bed, jobs))),
    ("batch", |bed, jobs| Box::pin(batch(bed, jobs))),
    ("drain", |bed, jobs| Box::pin(drain(bed, jobs))),
    ("pickup", |bed, _| Box::pin(pickup(bed))),
    ("memory", |bed, jobs| Box::pin(memory(bed, jobs))),
    ("rebuild", |bed, jobs| Box::pin(rebuild(bed, jobs))),
];

const CONNECTIONS: usize = 64;
const BATCH: usize = 100;
const PICKUPS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// About 200 bytes, like the payload of the peers.
const ARGS: &str = concat!(
    r#"{"pad":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"#,
    r#"012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}"#
);

/// One measured number.
#[derive(Serialize)]
pub struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

impl Figure {
    /// A line for people.
    pub fn print(&self) {
        say(&format!("{:44} {:>12.1} {}", self.name, self.value, self.unit));
    }
}

/// One JSON array for programs.
pub fn print_json(figures: &[Figure]) {
    say(&json!(figures).to_string());
}

fn say(text: &str) {
    // A closed pipe ends the bench anyway.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

async fn enqueue(bed: &mut Bed, jobs: usize) -> Result<Vec<Figure>> {
    let jobs = jobs.min(50_000);
    let request = post("/api/v1/jobs", &bed.api_key, &format!(r#"{{"kind":"noop","args":{ARGS}}}"#));
    let took = hammer(bed.port, CONNECTIONS, jobs, request).await?;
    Ok(vec![rate("HTTP enqueue, single, 64 connections", jobs, took), rss("  api peak RSS", &bed.api)?])
}

async fn batch(bed: &mut Bed, jobs: usize) -> Result<Vec<Figure>> {
    let took = fill(bed, jobs).await?;
    Ok(vec![rate("HTTP enqueue, batches of 100", jobs, took)])
}

async fn drain(bed: &mut Bed, jobs: usize) -> Result<Vec<Figure>> {
    fill(bed, jobs).await?;
    let mut figures = Vec::new();
    let worker = bed.worker(100).await?;
    let mut owner = bed.owner().await?;
    eventually(PATIENCE, "the backlog is drained", async || {
        let waiting: i64 = sqlx::query_scalar("select count(*) from jobs where finalized_at is null")
            .fetch_one(&mut owner)
            .await
            .ok()?;
        (waiting == 0).then_some(())
    })
    .await;
    let seconds: f64 =
        sqlx::query_scalar("select extract(epoch from max(finalized_at) - min(finalized_at))::float8 from jobs")
            .fetch_one(&mut owner)
            .await?;
    figures.push(rate("drain of noop, 1 worker, 100 slots", jobs, Duration::from_secs_f64(seconds)));
    figures.push(rss("  worker peak RSS", &worker)?);
    figures.push(rss("  scheduler peak RSS", &bed.scheduler)?);
    Ok(figures)
}

/// From the request's first byte to the callback's arrival: an upper bound of the time to the handler's start.
async fn pickup(bed: &mut Bed) -> Result<Vec<Figure>> {
    let sink = HttpSink::start().await?;
    let _worker = bed.worker(20).await?;
    let mut client = Client::connect(bed.port).await?;
    let mut taken = Vec::with_capacity(PICKUPS);
    for number in 0..PICKUPS + 50 {
        let token = format!("pickup-{number}");
        let body = json!({ "kind": "callback", "args": { "url": sink.url(), "token": token } }).to_string();
        let request = post("/api/v1/jobs", &bed.api_key, &body);
        let started = Instant::now();
        client.accepted(&request).await?;
        sink.wait_for(&token, PATIENCE).await;
        // The first ones open connections and fill caches.
        if number >= 50 {
            taken.push(started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    taken.sort_unstable();
    let at = |share: usize| taken[(taken.len() * share / 100).min(taken.len() - 1)].as_secs_f64() * 1_000.0;
    Ok(vec![
        Figure { name: "pick-up, idle: request to callback, p50", value: at(50), unit: "ms" },
        Figure { name: "pick-up, idle: request to callback, p99", value: at(99), unit: "ms" },
    ])
}

async fn memory(bed: &mut Bed, jobs: usize) -> Result<Vec<Figure>> {
    let before = used_memory(bed).await?;
    fill(bed, jobs).await?;
    wait_until_indexed(bed, jobs).await;
    let after = used_memory(bed).await?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = (after - before) as f64 / jobs as f64;
    Ok(vec![Figure { name: "Redis memory per waiting job", value: each, unit: "bytes" }])
}

async fn rebuild(bed: &mut Bed, jobs: usize) -> Result<Vec<Figure>> {
    fill(bed, jobs).await?;
    wait_until_indexed(bed, jobs).await;
    let started = Instant::now();
    bed.redis.flush_all().await?;
    wait_until_indexed(bed, jobs).await;
    Ok(vec![Figure {
        name: "index rebuild after FLUSHALL, grace included",
        value: started.elapsed().as_secs_f64(),
        unit: "s",
    }])
}

/// Commits noop jobs in batches.
async fn fill(bed: &Bed, jobs: usize) -> Result<Duration> {
    let item = format!(r#"{{"kind":"noop","args":{ARGS}}}"#);
    let body = format!(r#"{{"jobs":[{}]}}"#, vec![item; BATCH].join(","));
    hammer(bed.port, 8, jobs / BATCH, post("/api/v1/jobs/batch", &bed.api_key, &body)).await
}

/// Sends the same request `times` over a number of connections, as fast as they are answered.
async fn hammer(port: u16, connections: usize, times: usize, request: Vec<u8>) -> Result<Duration> {
    let (request, left) = (Arc::new(request), Arc::new(AtomicUsize::new(times)));
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(port).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (request, left) = (Arc::clone(&request), Arc::clone(&left));
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                client.accepted(&request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(started.elapsed())
}

/// Until every job stands in a lane of the default queue.
async fn wait_until_indexed(bed: &Bed, jobs: usize) {
    eventually(PATIENCE, "every job is in the index", async || {
        let keys: Vec<Vec<u8>> = bed.redis.command(redis::cmd("KEYS").arg("rota:{default}:lane:*")).await.ok()?;
        let mut waiting = 0;
        for key in keys {
            waiting += bed.redis.command::<usize>(redis::cmd("ZCARD").arg(key)).await.ok()?;
        }
        (waiting == jobs).then_some(())
    })
    .await;
}

async fn used_memory(bed: &Bed) -> Result<i64> {
    let info: String = bed.redis.command(redis::cmd("INFO").arg("memory")).await?;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap_or_default();
    Ok(line.trim().parse()?)
}

fn rate(name: &'static str, jobs: usize, took: Duration) -> Figure {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let value = jobs as f64 / took.as_secs_f64();
    Figure { name, value, unit: "jobs/s" }
}

fn rss(name: &'static str, process: &tests::process::ProcessUnderTest) -> Result<Figure> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let value = process.peak_rss_bytes()? as f64 / f64::from(1 << 20);
    Ok(Figure { name, value, unit: "MiB" })
}
