//! Redis flushed, restarted, restored from an old dump, full, frozen and down: nothing is lost and
//! nothing runs twice.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use serde_json::json;
use shared::{queue::IndexState, tenancy::TenantId};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    postgres::SharedServer,
    redis_server::{PrivateRedis, RedisOptions},
    system::TestSystem,
};

use crate::queue::support::{LEASE, Ledger, PATIENCE, callback, indexed, queue};

struct Scene {
    system: TestSystem,
    redis: PrivateRedis,
    sink: HttpSink,
    ledger: Ledger,
    tenant: TenantId,
}

impl Scene {
    async fn new() -> Result<Self> {
        let redis = PrivateRedis::new(RedisOptions::default()).await?;
        let database = SharedServer::from_env()?.create_database().await?;
        let system = TestSystem::on(database.urls().clone(), redis.url(), Some(database)).await?;
        let tenant = system.tenant("acme").await?;
        Ok(Self { sink: HttpSink::start().await?, ledger: Ledger::open(&system).await?, redis, system, tenant })
    }

    /// Commits jobs whose tokens are `name` and a number.
    async fn enqueue(&self, name: &str, jobs: usize) -> Result<()> {
        let token = |at| format!("{name} {at}");
        let jobs = (0..jobs).map(|at| callback(&self.system, self.tenant, &self.sink, &token(at))).collect();
        self.system.enqueue(jobs).await?;
        Ok(())
    }

    /// Commits jobs and waits until they run; they keep running until released.
    async fn occupy(&self, slots: usize) -> Result<()> {
        for at in 0..slots {
            self.sink.set(&format!("running {at}"), Behaviour::Hang);
        }
        self.enqueue("running", slots).await?;
        for at in 0..slots {
            self.sink.wait_for(&format!("running {at}"), PATIENCE).await;
        }
        Ok(())
    }

    fn release(&self, slots: usize) {
        for at in 0..slots {
            self.sink.release(&format!("running {at}"));
        }
    }

    async fn rebuilt(&self) {
        eventually(PATIENCE, "the index is rebuilt", async || {
            let status = self.system.index.status(&queue()).await.ok()?;
            (status.state == IndexState::Ready && status.complete && status.epoch >= 2).then_some(())
        })
        .await;
    }

    /// Checks that this many jobs ran once, in one attempt.
    async fn all_once(&mut self, jobs: usize) {
        let count = i64::try_from(jobs).expect("a small number");
        assert_eq!(self.ledger.completed(count).await, count, "every job took one attempt");
        let tokens = self.sink.tokens();
        assert_eq!(tokens.len(), jobs);
        assert!(tokens.values().all(|count| *count == 1), "{tokens:?}");
    }
}

enum Loss {
    Flush,
    Restart,
    /// Taken before the first jobs ran.
    OldDump,
}

async fn survives(loss: Loss) -> Result<()> {
    let mut scene = Scene::new().await?;
    let scheduler = scene.system.scheduler();
    scene.enqueue("finished", 5).await?;
    indexed(&scene.system, 5).await;
    let dump: PathBuf = scene.redis.save_dump().await?;
    let worker = scene.system.worker(2, LEASE);
    scene.ledger.completed(5).await;
    scene.occupy(2).await?;
    scene.enqueue("waiting", 10).await?;
    match loss {
        Loss::Flush => scene.redis.flush_all().await?,
        Loss::Restart => scene.redis.restart().await?,
        Loss::OldDump => scene.redis.restart_from_dump(&dump).await?,
    }
    scene.rebuilt().await;
    scene.release(2);
    scene.all_once(17).await;
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_loses_and_repeats_nothing() -> Result<()> {
    survives(Loss::Flush).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_data_loses_and_repeats_nothing() -> Result<()> {
    survives(Loss::Restart).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_dump_repeats_no_finished_job() -> Result<()> {
    survives(Loss::OldDump).await
}

/// Full memory refuses only commands that may grow it: new jobs wait in the ledger, and running
/// ones keep their leases.
#[tokio::test(flavor = "multi_thread")]
async fn with_full_memory_jobs_are_accepted_and_leases_kept() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (_scheduler, worker) = (scene.system.scheduler(), scene.system.worker(1, Duration::from_secs(2)));
    scene.occupy(1).await?;
    scene.redis.set_maxmemory(1).await?;
    scene.enqueue("accepted", 10).await?;
    // Two leases by Redis's own clock, so that an unrenewed lease would have expired.
    let lease = async || scene.system.index.status(&queue()).await.ok().map(|status| status.leased);
    let full = tokio::time::Instant::now();
    eventually(PATIENCE, "two leases have passed", async || {
        assert_eq!(lease().await, Some(1), "the running job keeps its lease");
        (full.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await;
    scene.redis.set_maxmemory(0).await?;
    scene.release(1);
    scene.all_once(11).await;
    worker.stop().await
}

/// No lease can be renewed while Redis is frozen, which must not make all holders look dead.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_longer_than_the_lease_rescues_no_job() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (_scheduler, worker) = (scene.system.scheduler(), scene.system.worker(4, Duration::from_secs(2)));
    scene.occupy(2).await?;
    scene.redis.pause()?;
    let frozen = tokio::time::Instant::now();
    scene.enqueue("waiting", 10).await?;
    assert!(frozen.elapsed() < Duration::from_secs(5), "enqueueing does not need Redis");
    tokio::time::sleep_until(frozen + Duration::from_secs(5)).await;
    scene.redis.resume()?;
    scene.ledger.completed(10).await;
    scene.release(2);
    scene.all_once(12).await;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_starts_without_redis_and_works_once_it_is_available() -> Result<()> {
    let mut scene = Scene::new().await?;
    scene.redis.kill().await?;
    let (scheduler, worker) = (scene.system.scheduler(), scene.system.worker(2, LEASE));
    scene.enqueue("early", 10).await?;
    let id = scene.system.enqueue(vec![scene.system.job(scene.tenant, "noop", &json!({}))]).await?[0];
    let job = scene.system.state(scene.tenant, id).await?;
    assert_eq!(job.map(|job| job.state.as_str()), Some("available"), "reading needs no Redis");
    scene.redis.start().await?;
    assert_eq!(scene.ledger.completed(11).await, 11);
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}
