//! Changing the number of shards with work waiting: by the procedure of `docs/OPERATIONS.md`, and
//! against it.

use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use shared::queue::{IndexState, Priority, WaitingJob, dispatch::Consumer};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    system::TestSystem,
};

use super::SPLIT;
use crate::queue::support::{
    LEASE, Ledger, PATIENCE, build_index, callback, indexed, leased, queue, reaches, redis, shard,
};

const TENANTS: usize = 8;
const JOBS: usize = 60;

/// Workers stop, all processes get another number, scheduler and workers start; jobs are enqueued
/// all the while, some for later.
#[tokio::test(flavor = "multi_thread")]
async fn changing_the_shards_from_one_to_four_and_back_loses_and_repeats_nothing() -> Result<()> {
    let mut system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set_default(Behaviour::Delay(Duration::from_millis(3)));
    let mut tenants = Vec::new();
    for at in 0..TENANTS {
        tenants.push(system.tenant(&format!("tenant-{at}")).await?);
    }
    let mut jobs = 0;
    for (step, shards) in ["", SPLIT, "default:1"].into_iter().enumerate() {
        system = system.split(shards)?;
        for tenant in &tenants {
            let mut new: Vec<_> =
                (0..JOBS).map(|at| callback(&system, *tenant, &sink, &format!("{step} {tenant} {at}"))).collect();
            new[0].run_at = Some(system.clock.now() + TimeDelta::seconds(3));
            jobs += new.len();
            system.enqueue(new).await?;
        }
        let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
        if step < 2 {
            sink.wait_total(sink.total() + 100, PATIENCE).await;
            worker.stop().await?;
            scheduler.stop().await;
            assert!(sink.total() + 100 < jobs, "there must be a backlog to move");
        } else {
            let all = i64::try_from(jobs)?;
            assert_eq!(Ledger::open(&system).await?.completed(all).await, all, "every job took one attempt");
            worker.stop().await?;
            scheduler.stop().await;
        }
    }
    let tokens = sink.tokens();
    assert_eq!((tokens.len(), tokens.values().sum::<usize>()), (jobs, jobs));
    let built: u16 = redis::cmd("GET")
        .arg(format!("{}:{{default}}:shards", system.prefix))
        .query_async(&mut redis(&system).await?)
        .await?;
    assert_eq!(built, 1);
    Ok(())
}

/// A process with the old number gets no jobs, loses its leases, and leaves nothing behind in
/// Redis.
#[tokio::test(flavor = "multi_thread")]
async fn workers_with_the_old_number_lose_their_leases_and_the_jobs_run_elsewhere() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenant = system.tenant("acme").await?;
    let jobs = (0..2).map(|_| system.job(tenant, "noop", &json!({}))).collect();
    let ids = system.enqueue(jobs).await?;
    indexed(&system, 2).await;
    let old = system.index.clone();
    let holder = Consumer::new(system.system.clone(), old.clone(), LEASE);
    let lease = holder.fetch(&shard(), 1).await?.leases.remove(0);
    leased(&system, lease.id).await;

    let system = system.split(SPLIT)?;
    let scheduler = system.scheduler();
    eventually(PATIENCE, "the old holder has lost its lease", async || {
        let held = [(&lease, Duration::ZERO)];
        let lost = old.renew(&shard(), LEASE, &held).await.ok()?.lost;
        (lost == [lease.id]).then_some(())
    })
    .await;
    let fetched = holder.fetch(&shard(), 10).await?;
    assert_eq!((fetched.state, fetched.leases.len()), (IndexState::Stale, 0));
    let priority = Priority::DEFAULT;
    old.push(&queue(), &[WaitingJob { id: ids[1], tenant, priority, run_at_ms: None }]).await?;
    assert_eq!(old.depth(&queue()).await?.available, 0, "no entry is left behind");

    let worker = system.worker(1, LEASE);
    for id in &ids {
        reaches(&system, tenant, *id, "completed").await;
    }
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

/// A run cut off by the change is interrupted and starts again; it does not continue beside its
/// second run.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_not_stopped_abandons_its_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let sink = HttpSink::start().await?;
    sink.set("running", Behaviour::Hang);
    let tenant = system.tenant("acme").await?;
    let (scheduler, forgotten) = (system.scheduler(), system.worker(1, LEASE));
    let id = system.enqueue(vec![callback(&system, tenant, &sink, "running")]).await?[0];
    sink.wait_for("running", PATIENCE).await;
    scheduler.stop().await;

    let system = system.split(SPLIT)?;
    let (scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    sink.wait_for_count("running", 2, PATIENCE).await;
    // The second run occupies the other worker's only slot, so this job runs only if the first run
    // was interrupted.
    let mut elsewhere = system.job(tenant, "noop", &json!({}));
    elsewhere.queue = system.registry.queues().into_iter().find(|other| *other != queue()).expect("several queues");
    let next = system.enqueue(vec![elsewhere]).await?[0];
    reaches(&system, tenant, next, "completed").await;
    forgotten.stop().await?;
    assert_eq!(system.state(tenant, id).await?.map(|job| job.state.as_str()), Some("running"));
    sink.release("running");
    reaches(&system, tenant, id, "completed").await;
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}
