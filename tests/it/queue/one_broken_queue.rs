//! A queue whose part of Redis answers with errors: the leader's work for the others goes on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use scheduler::{
    elector::{self, Leading, TERM_TTL},
    maintainer::Service as _,
    services::{IndexKeeper, Rescuer, Sweeper},
};
use shared::{
    ids,
    leadership::Candidate,
    queue::{QueueName, consumer::Consumer, reconcile::Reconciler},
};
use tests::{eventually::eventually, sql::id_at, system::TestSystem};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::support::{Ledger, PATIENCE, indexed, queue, redis, shard};

const INTERVAL: Duration = Duration::from_secs(1);

/// Every script that touches the queue's state or leases fails.
async fn break_queue(system: &TestSystem, queue: &QueueName) -> Result<()> {
    let mut connection = redis(system).await?;
    for key in ["meta", "leases"] {
        let key = format!("{}:{{{queue}}}:{key}", system.prefix);
        redis::cmd("SET").arg(key).arg("neither a hash nor a set").exec_async(&mut connection).await?;
    }
    Ok(())
}

/// A job of ten seconds ago of which no index was told.
async fn commit(system: &TestSystem, ledger: &mut Ledger, queue: &QueueName) -> Result<()> {
    let tenant = system.tenant("acme").await?;
    let insert = format!(
        "insert into jobs (id, tenant_id, queue, kind, args, state, priority, max_attempts)
         select {}, $1, $2, 'noop', '{{}}', 'available', 2, 20",
        id_at("now() - interval '10 s'")
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(tenant.as_uuid()).bind(queue.as_ref()).execute(&mut ledger.0).await?;
    Ok(())
}

/// The broken one comes first everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_others_are_rebuilt_swept_and_rescued() -> Result<()> {
    let system = TestSystem::start().await?;
    let mut ledger = Ledger::open(&system).await?;
    let queues: Vec<QueueName> = vec!["broken".parse()?, queue()];
    break_queue(&system, &queues[0]).await?;
    let (publish, mut leadership) = watch::channel::<Option<Leading>>(None);
    let (candidate, stop) =
        (Candidate::new(system.system.clone(), ids::new_id(&system.clock), TERM_TTL), CancellationToken::new());
    let election = tokio::spawn(elector::elect(candidate, publish, stop.clone()));
    let leading = leadership.wait_for(Option::is_some).await?.context("just seen")?;
    let reconciler = Reconciler::new(system.system.clone(), system.index.clone());

    let error = IndexKeeper::new(reconciler.clone(), queues.clone(), INTERVAL).run_once(&leading).await;
    assert!(format!("{:#}", error.expect_err("one is broken")).contains("queue broken"));
    indexed(&system, 0).await;

    for queue in &queues {
        commit(&system, &mut ledger, queue).await?;
    }
    let swept = Sweeper::new(reconciler, queues.clone(), INTERVAL).run_once(&leading).await;
    assert!(format!("{:#}", swept.expect_err("one is broken")).contains("queue broken"));
    indexed(&system, 1).await;

    let consumer = Consumer::new(system.system.clone(), system.index.clone(), Duration::from_millis(100));
    let id = consumer.fetch(&shard(), 1).await?.leases.first().context("it was swept in")?.id;
    let mut rescuer = Rescuer::new(system.system.clone(), system.index.clone(), queues, INTERVAL);
    eventually(PATIENCE, "its lease ran out and it was rescued", async || {
        // It says nothing until it may judge.
        let rescued = rescuer.run_once(&leading).await;
        let row = ledger.row(id).await.ok()?;
        (row.attempt == 2).then(|| assert!(rescued.is_err(), "one is broken"))
    })
    .await;
    stop.cancel();
    Ok(election.await?)
}
