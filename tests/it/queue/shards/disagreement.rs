//! Processes with a different number of shards than the leading scheduler.

use anyhow::Result;
use serde_json::json;
use shared::queue::{IndexState, Shard, dispatch::Consumer, enqueue::Producer, ledger::request::EnqueueRequest};
use tests::{eventually::eventually, process::ProcessUnderTest, system::TestSystem};

use super::SPLIT;
use crate::queue::support::{LEASE, PATIENCE, indexed, process_spec, queue, reaches, shard, worker_spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_disagreeing_worker_fetches_nothing() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?;
    indexed(&system, 1).await;
    let others = system.index_split("default:3")?.shards(&queue()).collect::<Vec<Shard>>();
    for other in others.into_iter().chain([shard()]) {
        let fetched = Consumer::new(system.system.clone(), system.index.clone(), LEASE).fetch(&other, 10).await?;
        assert_eq!((fetched.state, fetched.taken), (IndexState::Stale, 0), "{other}");
    }
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_submitted_by_a_disagreeing_process_run() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenant = system.tenant("acme").await?;
    let (scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    indexed(&system, 0).await;
    let other = Producer::start(&system.system, system.index_split("default:2")?, system.clock.clone());
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    other.enqueue(EnqueueRequest { jobs: vec![job], idempotency: None }).await?;
    reaches(&system, tenant, id, "completed").await;
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

async fn says(process: &ProcessUnderTest, text: &str) {
    eventually(PATIENCE, text, async || process.output().ok()?.contains(text).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disagreeing_processes_log_it_and_leave_the_work_to_others() -> Result<()> {
    let system = TestSystem::start().await?.split(SPLIT)?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    indexed(&system, 0).await;
    let worker = worker_spec(&system, 1, LEASE)?.env("ROTA_QUEUE_SHARDS", "default:2").start()?;
    let id = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    says(&worker, "ROTA_QUEUE_SHARDS differs from the leading scheduler's").await;
    assert_eq!(system.state(tenant, id).await?.map(|job| job.state.as_str()), Some("available"));
    let told = system.worker(1, LEASE);
    reaches(&system, tenant, id, "completed").await;
    told.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_refuses_to_split_an_unknown_queue() -> Result<()> {
    let system = TestSystem::start().await?;
    for name in ["worker", "scheduler"] {
        let spec = process_spec(&system, name)?.env("METRICS_PORT", "0").env("ROTA_QUEUE_SHARDS", "emial:4");
        let mut process = spec.start()?;
        let (status, output) = (process.wait_exit(PATIENCE).await?, process.output()?);
        assert!(!status.success() && output.contains(r#"unknown queue "emial"; known queues: "#), "{name}: {output}");
    }
    Ok(())
}
