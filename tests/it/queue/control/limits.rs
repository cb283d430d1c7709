//! Caps, rates and pauses: both sides of each, their effect on waiting jobs, and their survival of
//! a loss of Redis.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{
        Lease, Settlement,
        dispatch::Consumer,
        limits::{Limiter, QueueScope, ledger::LimitRow},
    },
    tenancy::TenantId,
};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use crate::queue::support::{
    LEASE, Ledger, PATIENCE, build_index, callback, indexed, lose_index, queue, reaches, shard,
};

/// Two tenants, and a consumer with which the tests lease manually.
struct Scene {
    system: TestSystem,
    limiter: Limiter,
    consumer: Consumer,
    tenants: [TenantId; 2],
}

impl Scene {
    async fn new() -> Result<Self> {
        let system = TestSystem::start().await?;
        let limiter = Limiter::new(system.system.clone(), system.index.clone());
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
        let tenants = [system.tenant("first").await?, system.tenant("second").await?];
        Ok(Self { system, limiter, consumer, tenants })
    }

    /// Commits this many jobs of each tenant and waits until the index contains them.
    async fn backlog(&self, jobs: [usize; 2]) -> Result<()> {
        for (tenant, jobs) in self.tenants.into_iter().zip(jobs) {
            self.system.enqueue((0..jobs).map(|_| self.system.job(tenant, "noop", &json!({}))).collect()).await?;
        }
        indexed(&self.system, jobs.iter().sum::<usize>() as u64).await;
        Ok(())
    }

    async fn limit(&self, row: LimitRow) -> Result<()> {
        let scope = QueueScope::One(queue());
        Ok(self.limiter.limit_tenant(self.tenants[0], &scope, &row, true, &[queue()]).await?)
    }

    async fn fetch(&self, wanted: usize) -> Result<Vec<Lease>> {
        Ok(self.consumer.fetch(&shard(), wanted).await?.leases)
    }

    async fn settle(&self, leases: &[Lease]) -> Result<()> {
        let ran = Some(Duration::from_millis(1));
        let end = |lease: &Lease| Settlement { ran, again: None, ..lease.release() };
        Ok(self.system.index.settle(&shard(), &leases.iter().map(end).collect::<Vec<_>>()).await?)
    }

    fn of_first<'a>(&self, leases: &'a [Lease]) -> Vec<&'a Lease> {
        leases.iter().filter(|lease| lease.tenant == self.tenants[0]).collect()
    }
}

fn cap(most: i32) -> LimitRow {
    LimitRow { max_running: Some(most), ..LimitRow::default() }
}

fn rate(per_second: f64, burst: i32) -> LimitRow {
    LimitRow { rate_per_second: Some(per_second), burst: Some(burst), ..LimitRow::default() }
}

fn pause(paused: bool) -> LimitRow {
    LimitRow { paused: Some(paused), ..LimitRow::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_holds_and_delays_no_other_tenant() -> Result<()> {
    let scene = Scene::new().await?;
    build_index(&scene.system).await;
    scene.limit(cap(3)).await?;
    scene.backlog([20, 20]).await?;
    let leases = scene.fetch(10).await?;
    assert_eq!(leases.len(), 10);
    assert_eq!(scene.of_first(&leases).len(), 3);
    let more = scene.fetch(10).await?;
    assert_eq!(more.len(), 10);
    assert_eq!(scene.of_first(&more).len(), 0, "at its cap");
    let first: Vec<Lease> = scene.of_first(&leases).into_iter().cloned().collect();
    scene.settle(&first[..1]).await?;
    let last = scene.fetch(10).await?;
    assert_eq!(last.len(), 4);
    assert_eq!(
        scene.of_first(&last).len(),
        1,
        "one job ended, so one may start, plus the last three of the other tenant"
    );
    scene.limit(cap(5)).await?;
    assert_eq!(scene.fetch(10).await?.len(), 2, "a higher cap acts at once");
    scene.limit(cap(1)).await?;
    scene.settle(&first[1..]).await?;
    assert_eq!(scene.fetch(10).await?.len(), 0, "a lower one as well: three still run");
    scene.limit(LimitRow::default()).await?;
    assert_eq!(scene.fetch(100).await?.len(), 20 - 6, "without a cap the remaining jobs run");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_or_retried_job_frees_its_place_under_the_cap() -> Result<()> {
    let scene = Scene::new().await?;
    build_index(&scene.system).await;
    scene.limit(cap(2)).await?;
    scene.backlog([5, 0]).await?;
    let leases = scene.fetch(10).await?;
    assert_eq!(leases.len(), 2);
    let back: Vec<_> = leases.iter().map(Lease::release).collect();
    scene.system.index.settle(&shard(), &back).await?;
    // A repeated settlement frees no second permit.
    scene.system.index.settle(&shard(), &back).await?;
    assert_eq!(scene.fetch(10).await?.len(), 2);
    assert_eq!(scene.fetch(10).await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refills_the_cap_without_delay() -> Result<()> {
    let scene = Scene::new().await?;
    let sink = HttpSink::start().await?;
    sink.set_default(Behaviour::Delay(Duration::from_millis(5)));
    let _scheduler = scene.system.scheduler();
    scene.limit(cap(1)).await?;
    let jobs = (0..60).map(|at| callback(&scene.system, scene.tenants[0], &sink, &at.to_string())).collect();
    scene.system.enqueue(jobs).await?;
    indexed(&scene.system, 60).await;
    let began = tokio::time::Instant::now();
    let worker = scene.system.worker(4, LEASE);
    sink.wait_total(60, PATIENCE).await;
    // Waiting for the 500 ms poll after each job would take half a minute.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_permits_a_burst_and_then_its_pace() -> Result<()> {
    let scene = Scene::new().await?;
    build_index(&scene.system).await;
    scene.limit(rate(0.5, 3)).await?;
    scene.backlog([20, 20]).await?;
    let leases = scene.fetch(10).await?;
    assert_eq!(leases.len(), 10);
    assert_eq!(scene.of_first(&leases).len(), 3, "the burst; the other is not held back");
    scene.settle(&leases).await?;
    let fetched = scene.consumer.fetch(&shard(), 30).await?;
    assert_eq!(scene.of_first(&fetched.leases).len(), 0, "no token yet");
    let next = fetched.next.expect("the time of the next token is known");
    assert!(next > Duration::ZERO && next <= Duration::from_secs(2), "{next:?}");
    let began = tokio::time::Instant::now();
    let later = eventually(PATIENCE, "the next token is available", async || {
        let leases = scene.fetch(10).await.ok()?;
        (!leases.is_empty()).then_some(leases)
    })
    .await;
    assert!(began.elapsed() + Duration::from_millis(100) >= next, "not before its time: {:?}", began.elapsed());
    assert!(later.len() <= 2, "{} at once at a rate of one in two seconds", later.len());
    scene.limit(LimitRow::default()).await?;
    assert_eq!(scene.fetch(100).await?.len(), 20 - 3 - later.len(), "without a rate the remaining jobs run");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_the_pace_of_a_rate() -> Result<()> {
    let scene = Scene::new().await?;
    let _scheduler = scene.system.scheduler();
    scene.limit(rate(20.0, 1)).await?;
    scene.backlog([41, 0]).await?;
    let began = tokio::time::Instant::now();
    let worker = scene.system.worker(8, LEASE);
    Ledger::open(&scene.system).await?.completed(41).await;
    let took = began.elapsed();
    // 40 tokens at 20 per second. A worker that slept until its poll each time would need 20 s.
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenant_waits_and_resumes_at_once() -> Result<()> {
    let scene = Scene::new().await?;
    let (_scheduler, worker) = (scene.system.scheduler(), scene.system.worker(2, LEASE));
    scene.limit(pause(true)).await?;
    let id = scene.system.enqueue(vec![scene.system.job(scene.tenants[0], "noop", &json!({}))]).await?[0];
    let other = scene.system.enqueue(vec![scene.system.job(scene.tenants[1], "noop", &json!({}))]).await?[0];
    reaches(&scene.system, scene.tenants[1], other, "completed").await;
    indexed(&scene.system, 1).await;
    reaches(&scene.system, scene.tenants[0], id, "available").await;
    scene.limit(pause(false)).await?;
    reaches(&scene.system, scene.tenants[0], id, "completed").await;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_leases_nothing_until_it_is_resumed() -> Result<()> {
    let scene = Scene::new().await?;
    build_index(&scene.system).await;
    scene.backlog([3, 3]).await?;
    scene.limiter.pause_queue(&queue(), true).await?;
    assert_eq!(scene.fetch(10).await?.len(), 0);
    scene.limiter.pause_queue(&queue(), false).await?;
    assert_eq!(scene.fetch(10).await?.len(), 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_index_lifts_no_limit_and_counts_what_runs() -> Result<()> {
    let scene = Scene::new().await?;
    let sink = HttpSink::start().await?;
    sink.set("0", Behaviour::Hang);
    sink.set("1", Behaviour::Hang);
    let (scheduler, worker) = (scene.system.scheduler(), scene.system.worker(4, LEASE));
    scene.limit(cap(2)).await?;
    let jobs = (0..6).map(|at| callback(&scene.system, scene.tenants[0], &sink, &at.to_string())).collect();
    scene.system.enqueue(jobs).await?;
    sink.wait_for("0", PATIENCE).await;
    sink.wait_for("1", PATIENCE).await;
    lose_index(&scene.system).await?;
    eventually(PATIENCE, "the index is rebuilt", async || {
        let status = scene.system.index.status(&queue()).await.ok()?;
        (status.complete && status.epoch >= 2 && status.leased == 2 && status.tenants_throttled == 1).then_some(())
    })
    .await;
    assert_eq!(sink.tokens().len(), 2, "the two running jobs were asserted and fill the cap");
    sink.release("0");
    sink.release("1");
    assert_eq!(Ledger::open(&scene.system).await?.completed(6).await, 6);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_did_not_reach_the_index_is_copied_by_the_scheduler() -> Result<()> {
    let scene = Scene::new().await?;
    let (_scheduler, worker) = (scene.system.scheduler(), scene.system.worker(2, LEASE));
    indexed(&scene.system, 0).await;
    let mut ledger = Ledger::open(&scene.system).await?;
    let tenant = *scene.tenants[0].as_uuid();
    for statement in [
        "insert into tenant_limits (tenant_id, queue, paused) values ($1, '*', true)",
        "insert into queue_settings (queue, paused) select 'default', $1::uuid is not null",
    ] {
        sqlx::query(statement).bind(tenant).execute(&mut ledger.0).await?;
    }
    let paused = async || scene.system.index.status(&queue()).await.ok().filter(|status| status.paused);
    eventually(PATIENCE, "the queue is paused", paused).await;
    let id = scene.system.enqueue(vec![scene.system.job(scene.tenants[0], "noop", &json!({}))]).await?[0];
    sqlx::query("update queue_settings set paused = false").execute(&mut ledger.0).await?;
    let throttled =
        async || scene.system.index.status(&queue()).await.ok().filter(|status| status.tenants_throttled == 1);
    eventually(PATIENCE, "the queue runs again, and only the tenant is paused", throttled).await;
    sqlx::query("delete from tenant_limits").execute(&mut ledger.0).await?;
    reaches(&scene.system, scene.tenants[0], id, "completed").await;
    worker.stop().await
}
