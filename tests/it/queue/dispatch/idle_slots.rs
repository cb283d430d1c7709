//! While a slot is free, every eligible job starts: however jobs arrive and whatever limits change,
//! none is left waiting.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use shared::{
    queue::limits::{Limiter, QueueScope, ledger::LimitRow},
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem};
use uuid::Uuid;

use crate::queue::support::{LEASE, PATIENCE, indexed, queue};

/// The documented bound, from eligibility to the start; the ledger records only the end.
const PROMISE: Duration = Duration::from_secs(1);
/// Allowance for a loaded machine: commit, run and reading the result.
const MACHINE: Duration = Duration::from_secs(4);

struct World {
    system: TestSystem,
    limiter: Limiter,
    tenants: Vec<TenantId>,
    random: StdRng,
    waiting: HashMap<TenantId, Vec<Uuid>>,
    /// From eligibility to the end, for all jobs.
    waits: Vec<Duration>,
}

impl World {
    /// One random step: jobs that are due now or soon, a change of limits, a pause that ends.
    async fn step(&mut self) -> Result<()> {
        let tenant = self.tenants[self.random.random_range(0..self.tenants.len())];
        let row = match self.random.random_range(0..8) {
            0 => LimitRow { weight: Some(self.random.random_range(1..=1_000)), ..LimitRow::default() },
            1 => LimitRow { max_running: Some(self.random.random_range(1..=3)), ..LimitRow::default() },
            2 => LimitRow { rate_per_second: Some(200.0), burst: Some(1), ..LimitRow::default() },
            3 => LimitRow { paused: Some(true), ..LimitRow::default() },
            _ => return self.submit(tenant).await,
        };
        let scope = QueueScope::One(queue());
        Ok(self.limiter.limit_tenant(tenant, &scope, &row, true, &[queue()]).await?)
    }

    async fn submit(&mut self, tenant: TenantId) -> Result<()> {
        let kind = ["noop", "sleep", "spin"][self.random.random_range(0..3)];
        let args = if kind == "noop" { json!({}) } else { json!({ "ms": self.random.random_range(1..5) }) };
        let mut job = self.system.job(tenant, kind, &args);
        if self.random.random_bool(0.3) {
            job.run_at = Some(self.system.clock.now() + Duration::from_millis(self.random.random_range(1..300)));
        }
        let ids = self.system.enqueue(vec![job]).await?;
        self.waiting.entry(tenant).or_default().extend(ids);
        Ok(())
    }

    /// Lifts the limits of a tenant; from then on all its jobs are eligible and must be done within
    /// the bound.
    async fn release(&mut self, tenant: TenantId) -> Result<()> {
        let scope = QueueScope::One(queue());
        self.limiter.limit_tenant(tenant, &scope, &LimitRow::default(), true, &[queue()]).await?;
        let released = self.system.clock.now();
        for id in self.waiting.remove(&tenant).unwrap_or_default() {
            let (run_at, ended) = eventually(PATIENCE, &format!("job {id} is done"), async || {
                let job = self.system.state(tenant, id).await.ok()??;
                Some((job.run_at, job.finalized_at?))
            })
            .await;
            self.waits.push((ended - run_at.max(released)).to_std().unwrap_or_default());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the seed is needed to repeat a failed run")]
async fn an_eligible_job_does_not_wait_while_a_worker_is_idle() -> Result<()> {
    let system = TestSystem::start().await?;
    let limiter = Limiter::new(system.system.clone(), system.index.clone());
    let mut tenants = Vec::new();
    for at in 0..4 {
        tenants.push(system.tenant(&format!("tenant-{at}")).await?);
    }
    let scheduler = system.scheduler();
    indexed(&system, 0).await;
    // No sweep and no crawl: jobs are found through the index alone.
    scheduler.stop().await;
    let worker = system.worker(8, LEASE);
    let seed = rand::random();
    println!("seed {seed}");
    let mut world = World {
        system,
        limiter,
        tenants,
        random: StdRng::seed_from_u64(seed),
        waiting: HashMap::new(),
        waits: Vec::new(),
    };
    for _ in 0..20 {
        for _ in 0..world.random.random_range(1..12) {
            world.step().await?;
        }
        let tenant = world.tenants[world.random.random_range(0..world.tenants.len())];
        world.release(tenant).await?;
    }
    for tenant in world.tenants.clone() {
        world.release(tenant).await?;
    }
    indexed(&world.system, 0).await;
    world.waits.sort_unstable();
    let (half, longest) = (world.waits[world.waits.len() / 2], world.waits.last().copied().unwrap_or_default());
    assert!(half < PROMISE / 2 && longest < PROMISE + MACHINE, "half within {half:?}, all within {longest:?}");
    worker.stop().await
}

/// Many jobs, one at a time, each with an idle worker: the start follows eligibility, not the poll.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_starts_new_and_due_jobs_at_once() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    indexed(&system, 0).await;
    scheduler.stop().await;
    let worker = system.worker(2, LEASE);
    let mut waits = Vec::new();
    for at in 0..30 {
        let mut job = system.job(tenant, "noop", &json!({}));
        let eligible = system.clock.now() + Duration::from_millis(if at % 2 == 0 { 0 } else { 120 });
        job.run_at = (at % 2 == 1).then_some(eligible);
        let id = system.enqueue(vec![job]).await?[0];
        let done = eventually(PATIENCE, "the job is done", async || {
            let job = system.state(tenant, id).await.ok()??;
            job.finalized_at
        })
        .await;
        waits.push((done - eligible).to_std().unwrap_or_default());
    }
    waits.sort_unstable();
    // The poll interval is 500 ms: if polling started the jobs, half of them would wait for 250 ms
    // or more.
    assert!(waits[15] < Duration::from_millis(200), "the median: {waits:?}");
    assert!(waits[29] < PROMISE + MACHINE, "the longest: {waits:?}");
    worker.stop().await
}
