//! `GET jobs/{id}/explain`: each reason in its situation, exactly one at a time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::{
    queue::{
        Lease, QueueName, Shard,
        dispatch::Consumer,
        limits::{Limiter, QueueScope, ledger::LimitRow},
    },
    tenancy::TenantId,
};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{TestApp, TestTenant},
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(30);

/// An API, a tenant, an index without a leader that would correct it, and a worker that only sends
/// heartbeats.
struct Scene {
    app: TestApp,
    tenant: TestTenant,
    consumer: Consumer,
    limiter: Limiter,
    worker: Uuid,
}

fn queue() -> QueueName {
    "default".parse().expect("a valid name")
}

impl Scene {
    async fn new() -> Result<Self> {
        let app = TestApp::start().await?;
        let tenant = app.tenant("acme").await?;
        let scheduler = app.system.scheduler();
        eventually(PATIENCE, "the index is built", async || {
            app.system.index.status(&queue()).await.ok()?.complete.then_some(())
        })
        .await;
        scheduler.stop().await;
        let consumer = Consumer::new(app.system.system.clone(), app.system.index.clone(), LEASE);
        let limiter = Limiter::new(app.system.system.clone(), app.system.index.clone());
        let scene = Self { app, tenant, consumer, limiter, worker: Uuid::max() };
        scene.serve().await?;
        Ok(scene)
    }

    /// Sends the worker's heartbeat, which is due every few seconds.
    async fn serve(&self) -> Result<()> {
        Ok(self.app.system.index.beat(&queue(), self.worker, 2).await?)
    }

    /// Commits jobs and waits until the index contains them.
    async fn backlog(&self, tenant: TenantId, jobs: usize) -> Result<Vec<Uuid>> {
        let system = &self.app.system;
        let before = system.index.depth(&queue()).await?.available;
        let ids = system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
        eventually(PATIENCE, "the index has the jobs", async || {
            let depth = system.index.depth(&queue()).await.ok()?;
            (depth.available == before + jobs as u64).then_some(())
        })
        .await;
        Ok(ids)
    }

    async fn fetch(&self, wanted: usize) -> Result<Vec<Lease>> {
        Ok(self.consumer.fetch(&Shard::whole(queue()), wanted).await?.leases)
    }

    async fn limit(&self, row: LimitRow) -> Result<()> {
        let scope = QueueScope::One(queue());
        Ok(self.limiter.limit_tenant(self.tenant.id, &scope, &row, true, &[queue()]).await?)
    }

    async fn explain(&self, id: Uuid) -> Result<Value> {
        self.serve().await?;
        Ok(self.tenant.api.get(&format!("/api/v1/jobs/{id}/explain")).await?.ok(200).clone())
    }

    async fn reason(&self, id: Uuid) -> Result<String> {
        let told = self.explain(id).await?;
        assert!(told["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{told}");
        Ok(told["reason"].as_str().with_context(|| format!("no reason: {told}"))?.to_owned())
    }

    async fn write(&self, statement: &'static str, id: Uuid) -> Result<()> {
        let mut owner = PgConnection::connect(&self.app.system.urls.owner).await?;
        sqlx::query(statement).bind(id).execute(&mut owner).await?;
        Ok(())
    }
}

fn time(value: &Value) -> Result<DateTime<Utc>> {
    Ok(value.as_str().context("no time")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_others_shows_its_position_and_an_estimate() -> Result<()> {
    let scene = Scene::new().await?;
    let ids = scene.backlog(scene.tenant.id, 5).await?;
    for (ahead, id) in ids.iter().enumerate() {
        let told = scene.explain(*id).await?;
        assert_eq!(told["reason"], if ahead == 0 { "dispatching" } else { "behind_own_jobs" }, "{told}");
        assert_eq!((&told["position"], &told["ahead_of_it"]), (&json!(ahead + 1), &json!(ahead)));
        assert_eq!(told["state"], "available");
        let starts = time(&told["estimated_start_at"])?;
        assert!(starts >= time(&told["run_at"])? && starts < scene.app.system.clock.now() + TimeDelta::minutes(1));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_worker_is_the_reason() -> Result<()> {
    let scene = Scene::new().await?;
    let id = scene.backlog(scene.tenant.id, 1).await?[0];
    assert_eq!(scene.reason(id).await?, "dispatching");
    scene.app.system.index.leave(&queue(), scene.worker, 2).await?;
    let told = scene.tenant.api.get(&format!("/api/v1/jobs/{id}/explain")).await?.ok(200).clone();
    assert_eq!((&told["reason"], &told["estimated_start_at"]), (&json!("no_worker"), &Value::Null));
    let worker = scene.app.system.worker(1, LEASE);
    eventually(PATIENCE, "the worker runs it", async || {
        let told = scene.explain(id).await.ok()?;
        (told["state"] == "completed" && told["reason"].is_null()).then_some(())
    })
    .await;
    // A real worker registers at its start and deregisters at its stop.
    scene.app.system.index.leave(&queue(), scene.worker, 2).await?;
    assert_eq!(scene.app.system.index.status(&queue()).await?.workers, 1);
    worker.stop().await?;
    assert_eq!(scene.app.system.index.status(&queue()).await?.workers, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_limits_are_named() -> Result<()> {
    let scene = Scene::new().await?;
    let ids = scene.backlog(scene.tenant.id, 4).await?;
    let limited = LimitRow { max_running: Some(1), ..LimitRow::default() };
    scene.limit(limited).await?;
    assert_eq!(scene.reason(ids[0]).await?, "dispatching", "below its cap");
    assert_eq!(scene.fetch(4).await?.len(), 1);
    let told = scene.explain(ids[0]).await?;
    assert_eq!((&told["state"], &told["reason"]), (&json!("running"), &Value::Null), "{told}");
    assert_eq!(scene.reason(ids[1]).await?, "tenant_cap");

    let slow = LimitRow { rate_per_second: Some(0.01), burst: Some(1), ..LimitRow::default() };
    scene.limit(slow).await?;
    assert_eq!(scene.reason(ids[1]).await?, "dispatching", "the tenant has a token");
    assert_eq!(scene.fetch(4).await?.len(), 1);
    let told = scene.explain(ids[2]).await?;
    assert_eq!(told["reason"], "tenant_rate", "{told}");
    let wait = time(&told["estimated_start_at"])? - scene.app.system.clock.now();
    assert!(wait > TimeDelta::seconds(30) && wait <= TimeDelta::seconds(101), "one token in 100 s: {wait}");

    scene.limit(LimitRow { paused: Some(true), ..limited }).await?;
    assert_eq!(scene.reason(ids[2]).await?, "tenant_paused", "a pause takes precedence over the cap");
    scene.limiter.pause_queue(&queue(), true).await?;
    assert_eq!(scene.reason(ids[2]).await?, "queue_paused", "the queue's pause takes precedence over the tenant's");
    scene.limiter.pause_queue(&queue(), false).await?;
    scene.limit(LimitRow::default()).await?;
    assert_eq!(scene.reason(ids[2]).await?, "dispatching");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_of_the_job_itself_come_first() -> Result<()> {
    let scene = Scene::new().await?;
    let mut later = scene.app.system.job(scene.tenant.id, "noop", &json!({}));
    let run_at = scene.app.system.clock.now() + TimeDelta::seconds(40);
    later.run_at = Some(run_at);
    let id = scene.app.system.enqueue(vec![later]).await?[0];
    scene.limiter.pause_queue(&queue(), true).await?;
    let told = scene.explain(id).await?;
    assert_eq!((&told["reason"], &told["state"]), (&json!("not_due"), &json!("scheduled")));
    assert_eq!((&told["position"], &told["ahead_of_it"]), (&Value::Null, &Value::Null));
    assert!((time(&told["estimated_start_at"])? - run_at).abs() < TimeDelta::milliseconds(1));

    scene.write("update jobs set state = 'retryable', failures = 2 where id = $1", id).await?;
    assert_eq!(scene.reason(id).await?, "backing_off");

    scene.write("update jobs set state = 'scheduled', waits_for = 3, run_at = now() where id = $1", id).await?;
    let told = scene.explain(id).await?;
    assert_eq!((&told["reason"], &told["state"]), (&json!("waiting_on_jobs"), &json!("scheduled")));
    assert_eq!(told["estimated_start_at"], Value::Null);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_index_the_ledger_gives_the_reason() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    // No index has been built.
    let id = app.system.enqueue(vec![app.system.job(tenant.id, "noop", &json!({}))]).await?[0];
    let told = tenant.api.get(&format!("/api/v1/jobs/{id}/explain")).await?.ok(200).clone();
    assert_eq!((&told["reason"], &told["state"]), (&json!("dispatching"), &json!("available")), "{told}");
    assert_eq!((&told["position"], &told["estimated_start_at"]), (&Value::Null, &Value::Null));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_job_is_not_there() -> Result<()> {
    let scene = Scene::new().await?;
    let other = scene.app.tenant("other").await?;
    let id = scene.backlog(other.id, 1).await?[0];
    scene.tenant.api.get(&format!("/api/v1/jobs/{id}/explain")).await?.problem(404, "not_found");
    scene.tenant.api.get(&format!("/api/v1/jobs/{}/explain", Uuid::max())).await?.problem(404, "not_found");
    Ok(())
}
