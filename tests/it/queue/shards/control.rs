//! Limits, pauses, cancellations, explanations and counts of a queue that is split.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::{
    queue::{
        JobChange, Lease, Notice, Notices, Settlement,
        limits::{QueueScope, ledger::LimitRow},
        observe::explain::{Explanation, Reason, explain},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{SPLIT, Scene, key, tenants_of_each};
use crate::queue::support::{LEASE, Ledger, PATIENCE, cancel, queue, reaches, redis};

async fn limit(scene: &Scene, tenant: TenantId, row: LimitRow) -> Result<()> {
    Ok(scene.limiter.limit_tenant(tenant, &QueueScope::One(queue()), &row, true, &[queue()]).await?)
}

fn of(tenant: TenantId, leases: &[Lease]) -> usize {
    leases.iter().filter(|lease| lease.tenant == tenant).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_exact_and_delays_no_other_tenant() -> Result<()> {
    let scene = Scene::new(2).await?;
    let capped = scene.tenants[1][0];
    limit(&scene, capped, LimitRow { max_running: Some(2), ..LimitRow::default() }).await?;
    scene.backlog(5).await?;
    let leases = scene.fetch_of_each(10).await?;
    assert_eq!(leases.iter().map(Vec::len).collect::<Vec<_>>(), [10, 7, 10, 10]);
    assert_eq!(of(capped, &leases[1]), 2);
    assert_eq!(scene.fetch_of_each(10).await?.concat().len(), 0, "at its cap, and the others have no jobs left");
    let ended = leases[1].iter().find(|lease| lease.tenant == capped).context("the tenant has two leases")?;
    let ran = Some(Duration::from_millis(1));
    let end = Settlement { ran, again: None, ..ended.release() };
    scene.system.index.settle(&ended.shard, &[end]).await?;
    assert_eq!(of(capped, &scene.fetch(1, 10).await?), 1, "one job ended, so one may start");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_all_shards_and_is_repaired_in_each() -> Result<()> {
    let scene = Scene::new(1).await?;
    scene.backlog(2).await?;
    scene.limiter.pause_queue(&queue(), true).await?;
    assert!(scene.system.index.status(&queue()).await?.paused);
    assert_eq!(scene.fetch_of_each(10).await?.concat().len(), 0);
    scene.limiter.pause_queue(&queue(), false).await?;
    assert_eq!(scene.fetch_of_each(1).await?.concat().len(), 4);

    // One shard missed the update.
    scene.limiter.reconcile(&[queue()]).await?;
    let flag = async |shard: usize, paused: &str| {
        let meta = key(&scene.system, &scene.shards[shard], "meta");
        let mut redis = redis(&scene.system).await?;
        anyhow::Ok(redis::cmd("HSET").arg(meta).arg("paused").arg(paused).query_async::<()>(&mut redis).await?)
    };
    flag(2, "1").await?;
    assert_eq!(scene.fetch(2, 10).await?.len(), 0);
    assert_eq!(scene.limiter.reconcile(&[queue()]).await?, 1);
    assert_eq!(scene.fetch(2, 10).await?.len(), 1);
    scene.limiter.pause_queue(&queue(), true).await?;
    flag(3, "0").await?;
    assert_eq!(scene.limiter.reconcile(&[queue()]).await?, 1);
    assert_eq!(scene.fetch(3, 10).await?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_repaired_in_the_tenants_shard() -> Result<()> {
    let scene = Scene::new(1).await?;
    let tenant = scene.tenants[3][0];
    limit(&scene, tenant, LimitRow { max_running: Some(1), ..LimitRow::default() }).await?;
    scene.limiter.reconcile(&[queue()]).await?;
    assert_eq!(scene.limiter.reconcile(&[queue()]).await?, 0, "in agreement");
    let mut redis = redis(&scene.system).await?;
    let limits: Vec<String> = scene.shards.iter().map(|shard| key(&scene.system, shard, "limits")).collect();
    for (at, shard) in limits.iter().enumerate() {
        let known: bool =
            redis::cmd("HEXISTS").arg(shard).arg(tenant.as_uuid().as_bytes()).query_async(&mut redis).await?;
        assert_eq!(known, at == 3, "{shard}");
    }
    redis::cmd("HDEL").arg(&limits[3]).arg(tenant.as_uuid().as_bytes()).query_async::<()>(&mut redis).await?;
    assert_eq!(scene.limiter.reconcile(&[queue()]).await?, 1);
    scene.backlog(3).await?;
    assert_eq!(scene.fetch(3, 10).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_cancelled_in_its_shard_and_followers_are_notified() -> Result<()> {
    let scene = Scene::new(1).await?;
    let ids = scene.backlog(2).await?;
    let stop = CancellationToken::new();
    let mut notices = Notices::watch(&scene.system.index, &[queue()], stop.clone());
    assert_eq!(notices.next().await, Some(Notice::Connected));
    for (tenants, ids) in scene.tenants.iter().zip(&ids) {
        scene.system.index.watch(&queue(), tenants[0], ids[0], PATIENCE).await?;
        cancel(&scene.system, tenants[0], ids[0]).await?;
        let heard = timeout(PATIENCE, notices.next()).await?;
        assert_eq!(heard, Some(Notice::Changed(ids[0], JobChange::Cancelled)));
    }
    assert_eq!(scene.system.index.depth(&queue()).await?.available, 4);
    let left: Vec<Uuid> = scene.fetch_of_each(10).await?.concat().iter().map(|lease| lease.id).collect();
    assert_eq!(left, ids.iter().map(|ids| ids[1]).collect::<Vec<_>>());
    stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_of_any_shard_is_stopped() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenants = tenants_of_each(&system, 1).await?.concat();
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    for tenant in tenants {
        let hour = system.job(tenant, "sleep", &json!({ "ms": 3_600_000 }));
        let long = system.enqueue(vec![hour]).await?[0];
        reaches(&system, tenant, long, "running").await;
        let next = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
        cancel(&system, tenant, long).await?;
        // The only slot becomes free only once the long job has been stopped.
        reaches(&system, tenant, next, "completed").await;
        assert_eq!(Ledger::open(&system).await?.row(long).await?.state, "cancelled");
    }
    worker.stop().await
}

async fn explained(scene: &Scene, tenant: TenantId, id: Uuid) -> Result<Explanation> {
    let mut transaction = scene.system.tenants.begin(tenant).await?;
    explain(&mut transaction, &scene.system.index, id).await?.context("no such job")
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_reads_the_tenants_shard_and_counts_all_shards() -> Result<()> {
    let scene = Scene::new(2).await?;
    let ids = scene.backlog(3).await?;
    let (tenant, last, process) = (scene.tenants[2][0], ids[2][2], Uuid::max());
    assert_eq!(explained(&scene, tenant, last).await?.reason, Some(Reason::NoWorker));
    scene.system.index.beat(&queue(), process, 8).await?;
    let told = explained(&scene, tenant, last).await?;
    assert_eq!((told.reason, told.position), (Some(Reason::BehindOwnJobs), Some(3)));
    assert!(told.estimated_start_at.is_some());
    let first = explained(&scene, tenant, ids[2][0]).await?;
    assert_eq!(first.reason, Some(Reason::Dispatching));
    assert!(first.detail.contains("you and 7 others"), "{}", first.detail);
    limit(&scene, tenant, LimitRow { paused: Some(true), ..LimitRow::default() }).await?;
    assert_eq!(explained(&scene, tenant, last).await?.reason, Some(Reason::TenantPaused));
    let neighbour = explained(&scene, scene.tenants[2][1], ids[2][3]).await?;
    assert_eq!(neighbour.reason, Some(Reason::Dispatching));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_cover_all_shards_and_each_worker_once() -> Result<()> {
    let scene = Scene::new(2).await?;
    scene.backlog(3).await?;
    scene.system.index.beat(&queue(), Uuid::max(), 8).await?;
    let leases = scene.fetch_of_each(2).await?.concat();
    assert_eq!(scene.system.index.depth(&queue()).await?.available, 24 - 8);
    let status = scene.system.index.status(&queue()).await?;
    assert_eq!(status.leased, 8);
    assert_eq!(status.tenants_waiting, 8);
    assert_eq!(status.workers, 1);
    assert_eq!(status.slots, 8);
    let asked: Vec<_> = leases.iter().map(|lease| (lease.id, lease.tenant)).collect();
    assert_eq!(scene.system.index.leased(&queue(), &asked).await?, vec![true; 8]);
    let oldest = scene.system.index.depth(&queue()).await?.oldest_run_at_ms.context("jobs wait")?;
    assert!(oldest <= scene.system.clock.now_ms());
    scene.system.index.leave(&queue(), Uuid::max(), 8).await?;
    assert_eq!(scene.system.index.status(&queue()).await?.workers, 0);
    Ok(())
}
