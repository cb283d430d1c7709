//! Every job runs once, through workers' shutdown, the loss of Redis, and the loss of one shard.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use serde_json::json;
use shared::queue::{IndexState, dispatch::Consumer};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    postgres::SharedServer,
    redis_server::{PrivateRedis, RedisOptions},
    system::TestSystem,
};

use super::{SPLIT, key, tenants_of_each};
use crate::queue::support::{LEASE, Ledger, PATIENCE, callback, indexed, queue, redis};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_twenty_tenants_run_once_each() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let sink = HttpSink::start().await?;
    let tenants: Vec<_> = tenants_of_each(&system, 5).await?.concat();
    let (scheduler, workers) = (system.scheduler(), [system.worker(4, LEASE), system.worker(4, LEASE)]);
    for (at, tenant) in tenants.iter().enumerate() {
        let jobs = (0..15).map(|job| callback(&system, *tenant, &sink, &format!("{at} {job}")));
        system.enqueue(jobs.collect()).await?;
    }
    assert_eq!(Ledger::open(&system).await?.completed(300).await, 300, "every job took one attempt");
    let tokens = sink.tokens();
    assert_eq!(tokens.len(), 300);
    assert_eq!(tokens.values().sum::<usize>(), 300);
    for worker in workers {
        worker.stop().await?;
    }
    scheduler.stop().await;
    let status = system.index.status(&queue()).await?;
    assert_eq!(status.leased, 0);
    assert_eq!(status.tenants_waiting, 0);
    assert_eq!(status.workers, 0, "nothing is left behind");
    Ok(())
}

async fn slots(redis: &PrivateRedis, system: &TestSystem) -> Result<BTreeSet<u16>> {
    let mut slots = BTreeSet::new();
    for shard in system.index.shards(&queue()) {
        let active = key(system, &shard, "active");
        slots.insert(redis.command(redis::cmd("CLUSTER").arg("KEYSLOT").arg(active)).await?);
    }
    Ok(slots)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_loses_and_repeats_nothing() -> Result<()> {
    let redis = PrivateRedis::new(RedisOptions { cluster: true, ..RedisOptions::default() }).await?;
    let database = SharedServer::from_env()?.create_database().await?;
    let system = TestSystem::on(database.urls().clone(), redis.url(), Some(database)).await?.split(SPLIT)?;
    let sink = HttpSink::start().await?;
    let tenants: Vec<_> = tenants_of_each(&system, 1).await?.concat();
    let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    for (at, tenant) in tenants.iter().enumerate() {
        sink.set(&format!("running {at}"), Behaviour::Hang);
        system.enqueue(vec![callback(&system, *tenant, &sink, &format!("running {at}"))]).await?;
        sink.wait_for(&format!("running {at}"), PATIENCE).await;
    }
    for (at, tenant) in tenants.iter().enumerate() {
        let jobs = (0..10).map(|job| callback(&system, *tenant, &sink, &format!("waiting {at} {job}")));
        system.enqueue(jobs.collect()).await?;
    }
    assert_eq!(slots(&redis, &system).await?.len(), 4, "each shard is a slot of its own");
    let before = system.index.status(&queue()).await?.epoch;
    redis.flush_all().await?;
    eventually(PATIENCE, "the index is rebuilt", async || {
        let status = system.index.status(&queue()).await.ok()?;
        (status.state == IndexState::Ready && status.complete && status.epoch > before).then_some(())
    })
    .await;
    for at in 0..tenants.len() {
        sink.release(&format!("running {at}"));
    }
    assert_eq!(Ledger::open(&system).await?.completed(44).await, 44, "every job took one attempt");
    let tokens = sink.tokens();
    assert_eq!(tokens.len(), 44);
    assert_eq!(tokens.values().sum::<usize>(), 44);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

/// In a cluster, a single node can be lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_one_shard_causes_a_rebuild_of_the_queue() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenants: Vec<_> = tenants_of_each(&system, 1).await?.concat();
    let scheduler = system.scheduler();
    for tenant in &tenants {
        system.enqueue((0..5).map(|_| system.job(*tenant, "noop", &json!({}))).collect()).await?;
    }
    indexed(&system, 20).await;
    let lost = system.index.shards(&queue()).nth(2).expect("four shards");
    let keys: Vec<Vec<u8>> =
        redis::cmd("KEYS").arg(key(&system, &lost, "*")).query_async(&mut redis(&system).await?).await?;
    assert!(keys.len() >= 3, "{} keys", keys.len());
    let epoch = system.index.status(&queue()).await?.epoch;
    redis::cmd("DEL").arg(&keys).query_async::<()>(&mut redis(&system).await?).await?;
    eventually(PATIENCE, "all shards come from a later rebuild", async || {
        let status = system.index.status(&queue()).await.ok()?;
        (status.state == IndexState::Ready && status.complete && status.epoch > epoch).then_some(())
    })
    .await;
    indexed(&system, 20).await;
    let worker = system.worker(4, LEASE);
    assert_eq!(Ledger::open(&system).await?.completed(20).await, 20);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_lost_worker_are_rescued_in_every_shard() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenants: Vec<_> = tenants_of_each(&system, 1).await?.concat();
    let _scheduler = system.scheduler();
    for tenant in &tenants {
        system.enqueue(vec![system.job(*tenant, "noop", &json!({}))]).await?;
    }
    indexed(&system, 4).await;
    // A holder that never renews.
    let lost = Consumer::new(system.system.clone(), system.index.clone(), Duration::from_millis(100));
    for shard in system.index.shards(&queue()) {
        assert_eq!(lost.fetch(&shard, 10).await?.leases.len(), 1, "{shard}");
    }
    let worker = system.worker(4, LEASE);
    let mut ledger = Ledger::open(&system).await?;
    assert_eq!(ledger.completed(4).await, 0);
    assert_eq!(ledger.count("completed", 2).await?, 4, "each job lost its first attempt");
    worker.stop().await
}
