//! A leader that dies while it changes a queue's number of shards: no job is leased twice in
//! between, and the next leader continues.

use anyhow::Result;
use serde_json::json;
use shared::queue::{IndexState, dispatch::Consumer};
use tests::system::TestSystem;

use super::is_killed;
use crate::queue::support::{LEASE, Ledger, indexed, scheduler_spec, shard};

const JOBS: i64 = 40;

async fn survives(point: &str) -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let scheduler = system.scheduler();
    system.enqueue((0..JOBS).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    indexed(&system, 40).await;
    scheduler.stop().await;
    let old = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let spec = scheduler_spec(&system)?.env("ROTA_QUEUE_SHARDS", "default:3");
    let mut leader = spec.env("ROTA_FAULT", format!("{point}:1:kill")).start()?;
    is_killed(&mut leader).await?;
    let system = system.split("default:3")?;
    let new = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let shards = system.index.shards(shard().queue());
    for (consumer, shard) in [(&old, shard())].into_iter().chain(shards.map(|shard| (&new, shard))) {
        let fetched = consumer.fetch(&shard, 10).await?;
        assert_eq!((fetched.state, fetched.taken), (IndexState::Stale, 0), "{shard}");
    }

    let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    let once = Ledger::open(&system).await?.completed(JOBS).await;
    assert_eq!(once, JOBS, "every job took one attempt");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_retiring_the_old_shards_the_next_leader_continues() -> Result<()> {
    survives("reshard_after_retire").await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_recording_the_new_number_the_next_leader_builds_the_shards() -> Result<()> {
    survives("reshard_after_note").await
}
