//! A queue whose keys in Redis cause errors: the leader's work for the other queues continues.

use std::time::Duration;

use anyhow::{Context as _, Result};
use scheduler::{
    elector::{self, Leading, TERM_TTL},
    maintainer::Service,
    services::{Crawler, IndexKeeper, LimitKeeper, Promoter, Rescuer, Sweeper},
};
use shared::{
    ids,
    leadership::Candidate,
    queue::{QueueName, dispatch::Consumer, limits::Limiter, repair::reconcile::Reconciler},
};
use tests::{eventually::eventually, sql::id_at, system::TestSystem};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::queue::support::{Ledger, PATIENCE, indexed, queue, redis, shard};

const INTERVAL: Duration = Duration::from_secs(1);

/// Makes every script that touches the queue's state or leases fail.
async fn break_queue(system: &TestSystem, queue: &QueueName) -> Result<()> {
    let mut connection = redis(system).await?;
    for key in ["meta", "leases"] {
        let key = format!("{}:{{{queue}}}:{key}", system.prefix);
        redis::cmd("SET").arg(key).arg("neither a hash nor a set").exec_async(&mut connection).await?;
    }
    Ok(())
}

/// Inserts a job ten seconds old in this state, without a push to the index.
async fn commit(system: &TestSystem, ledger: &mut Ledger, queue: &QueueName, state: &str) -> Result<()> {
    let tenant = system.tenant("acme").await?;
    let insert = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts)
         select {}, $1, $2, 'noop', '{{}}', $3::job_state, 2, 20",
        id_at("now() - interval '10 s'")
    );
    sqlx::query(sqlx::AssertSqlSafe(insert))
        .bind(tenant.as_uuid())
        .bind(queue.as_ref())
        .bind(state)
        .execute(&mut ledger.0)
        .await?;
    Ok(())
}

/// A leader that leads until `end`; the broken queue comes first in every service, and the index of
/// the other is built.
struct Scene {
    system: TestSystem,
    ledger: Ledger,
    queues: Vec<QueueName>,
    reconciler: Reconciler,
    leading: Leading,
    stop: CancellationToken,
    election: JoinHandle<()>,
}

impl Scene {
    async fn set() -> Result<Self> {
        let system = TestSystem::start().await?;
        let ledger = Ledger::open(&system).await?;
        let queues: Vec<QueueName> = vec!["broken".parse()?, queue()];
        break_queue(&system, &queues[0]).await?;
        let (publish, mut leadership) = watch::channel::<Option<Leading>>(None);
        let (candidate, stop) =
            (Candidate::new(system.system.clone(), ids::new_id(&system.clock), TERM_TTL), CancellationToken::new());
        let election = tokio::spawn(elector::elect(candidate, publish, stop.clone()));
        let leading = (*leadership.wait_for(Option::is_some).await?).context("just seen")?;
        let reconciler = Reconciler::new(system.system.clone(), system.index.clone());
        let scene = Self { system, ledger, queues, reconciler, leading, stop, election };
        let keeper = IndexKeeper::new(scene.reconciler.clone(), scene.queues.clone(), INTERVAL);
        scene.fails_for_the_broken_one(keeper).await;
        indexed(&scene.system, 0).await;
        Ok(scene)
    }

    async fn commit_to_both(&mut self, state: &str) -> Result<()> {
        for queue in &self.queues {
            commit(&self.system, &mut self.ledger, queue, state).await?;
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.election.await?)
    }

    async fn fails_for_the_broken_one(&self, mut service: impl Service) {
        let Err(error) = service.run_once(&self.leading).await else { panic!("one queue is broken") };
        assert!(format!("{error:#}").contains("broken"), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_queues_are_rebuilt_swept_and_rescued() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.commit_to_both("available").await?;
    scene.fails_for_the_broken_one(Sweeper::new(scene.reconciler.clone(), scene.queues.clone(), INTERVAL)).await;
    indexed(&scene.system, 1).await;

    let (system, leading) = (&scene.system, &scene.leading);
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), Duration::from_millis(100));
    let id = consumer.fetch(&shard(), 1).await?.leases.first().context("the job was swept in")?.id;
    let mut rescuer = Rescuer::new(system.system.clone(), system.index.clone(), scene.queues.clone(), INTERVAL);
    eventually(PATIENCE, "its lease expired and the job was rescued", async || {
        // The rescuer skips its first rounds silently, until it may rescue.
        let rescued = rescuer.run_once(leading).await;
        let row = scene.ledger.row(id).await.ok()?;
        (row.attempt == 2).then(|| assert!(rescued.is_err(), "one queue is broken"))
    })
    .await;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_queues_are_promoted_crawled_and_limited() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.commit_to_both("scheduled").await?;
    scene.fails_for_the_broken_one(Promoter::new(scene.reconciler.clone(), INTERVAL)).await;
    indexed(&scene.system, 1).await;

    scene.commit_to_both("available").await?;
    scene.fails_for_the_broken_one(Crawler::new(scene.reconciler.clone(), scene.queues.clone(), INTERVAL)).await;
    indexed(&scene.system, 2).await;

    let limiter = Limiter::new(scene.system.system.clone(), scene.system.index.clone());
    let pause = "insert into queue_settings (queue, paused) values ('default', true)";
    sqlx::query(pause).execute(&mut scene.ledger.0).await?;
    scene.fails_for_the_broken_one(LimitKeeper::new(limiter, scene.queues.clone(), INTERVAL)).await;
    assert!(scene.system.index.status(&queue()).await?.paused);
    scene.end().await
}
