//! Tenant B: enqueues one job after the other and measures the time from each request to its
//! effect.
//!
//! Invariant: times are measured outside Rota, from before the request is sent until the job's
//! callback arrives.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    http_sink::HttpSink,
    installation::{ApiClient, Installation},
};

/// Tolerance during an attack, in addition to twice the undisturbed value. The bound is that of a
/// release build (`cargo test --release -p tests --test hostile`). A debug build on two shared
/// cores spends most of its time on the attacker's requests and only shows that B is not starved.
const TOLERANCE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 10_000 } else { 20 });
/// A job that takes longer than this counts as not run.
const LONGEST: Duration = Duration::from_mins(1);
/// The pause between two probes.
const EVERY: Duration = Duration::from_millis(20);

/// Tenant B.
pub struct Neighbour {
    client: ApiClient,
    sink: HttpSink,
    probes: AtomicU64,
}

/// The times of B's jobs from request to effect, in ascending order.
#[derive(Debug)]
pub struct Waits(Vec<Duration>);

impl Neighbour {
    pub async fn new(rota: &Installation) -> Result<Self> {
        Ok(Self { client: rota.neighbour.clone(), sink: HttpSink::start().await?, probes: AtomicU64::new(0) })
    }

    /// Enqueues this many jobs one by one and waits for the effect of each.
    pub async fn work(&self, probes: usize) -> Result<Waits> {
        let mut waits = Vec::with_capacity(probes);
        for _ in 0..probes {
            waits.push(self.probe().await?);
        }
        Ok(Waits::of(waits))
    }

    /// Like `work`, for this long.
    pub async fn work_for(&self, span: Duration) -> Result<Waits> {
        let (started, mut waits) = (Instant::now(), Vec::new());
        while started.elapsed() < span {
            waits.push(self.probe().await?);
        }
        Ok(Waits::of(waits))
    }

    async fn probe(&self) -> Result<Duration> {
        let token = format!("b-{}", self.probes.fetch_add(1, Ordering::Relaxed));
        let job = json!({ "kind": "callback", "args": { "url": self.sink.url(), "token": token } });
        let started = Instant::now();
        self.client.post("jobs", &job).await?.expect(202)?;
        self.sink.wait_for(&token, LONGEST).await;
        let wait = started.elapsed();
        tokio::time::sleep(EVERY).await;
        Ok(wait)
    }

    /// Fails unless every probe so far had exactly one effect.
    pub fn ensure_once(&self) -> Result<()> {
        let expected = usize::try_from(self.probes.load(Ordering::Relaxed))?;
        let tokens = self.sink.tokens();
        let repeated: Vec<_> = tokens.iter().filter(|(_, count)| **count != 1).collect();
        ensure!(repeated.is_empty(), "ran more than once: {repeated:?}");
        ensure!(tokens.len() == expected, "{} of {expected} ran", tokens.len());
        Ok(())
    }
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        Self(waits)
    }

    /// The p99 of at least 100 probes; of fewer, the second longest, so that one hiccup of the
    /// machine decides nothing.
    pub fn p99(&self) -> Duration {
        let outliers = (self.0.len() / 100).max(1);
        self.0[self.0.len().saturating_sub(1 + outliers)]
    }

    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// Compares the values during an attack with the undisturbed ones.
    pub fn ensure_like(&self, alone: &Self) -> Result<()> {
        let (beside, alone) = (self.p99(), alone.p99());
        ensure!(beside <= 2 * alone + TOLERANCE, "p99 {beside:?} during the attack, {alone:?} undisturbed");
        Ok(())
    }
}
