//! A worker that found too little is kept for a job while that is committed, and told of it when it is there.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::{
    queue::{
        Notice,
        consumer::Consumer,
        producer::{EnqueueRequest, Enqueued, Idempotency},
    },
    tenancy::TenantId,
};
use sqlx::{Connection as _, PgConnection};
use tests::{eventually::eventually, system::TestSystem};
use tokio::time::sleep;

use super::{
    grants::{Idle, granted_channels, indexed_and_free, leased, scene},
    support::{LEASE, PATIENCE, queue, redis, root, shard, virtual_time},
};

/// Longer than a reservation may take to be granted.
const LATE: Duration = Duration::from_millis(1_200);
/// Longer than a reservation lasts of which nobody is told.
const FORGOTTEN: Duration = Duration::from_secs(3);

fn request(system: &TestSystem, tenant: TenantId) -> EnqueueRequest {
    EnqueueRequest { jobs: vec![system.job(tenant, "noop", &json!({}))], idempotency: None }
}

/// What the ledger refuses, because a job that is due later has that id.
async fn refused(system: &TestSystem, tenant: TenantId) -> Result<EnqueueRequest> {
    let (mut later, mut doomed) = (request(system, tenant), request(system, tenant));
    later.jobs[0].run_at = Some(system.clock.now() + Duration::from_hours(1));
    doomed.jobs[0].id = later.jobs[0].id;
    system.producer.enqueue(later).await?;
    Ok(doomed)
}

/// Enqueues; the commit does not come before the end of `meanwhile`.
async fn enqueue_during(
    system: &TestSystem,
    request: EnqueueRequest,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Enqueued> {
    let mut ledger = PgConnection::connect(&system.urls.owner).await?;
    let mut transaction = ledger.begin().await?;
    sqlx::query("lock table jobs in share mode").execute(&mut *transaction).await?;
    let meanwhile = async {
        meanwhile.await?;
        anyhow::Ok(transaction.rollback().await?)
    };
    let (enqueued, meanwhile) = tokio::join!(system.producer.enqueue(request), meanwhile);
    meanwhile?;
    Ok(enqueued?)
}

async fn reaches_leased(system: &TestSystem, jobs: u64) {
    let reached = async || (leased(system).await.ok()? == jobs).then_some(());
    eventually(PATIENCE, &format!("{jobs} are leased"), reached).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_reserved_during_the_commit_and_told_after_it() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let other = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let request = request(&system, tenant);
    let id = request.jobs[0].id;
    let meanwhile = async {
        reaches_leased(&system, 1).await;
        assert_eq!(system.index.depth(&queue()).await?.available, 0, "nobody finds it before it is there");
        assert_eq!(other.fetch(&shard(), 1).await?.taken, 0);
        assert_eq!(idle.hears_by_now().await?, None, "nobody is told before it is there");
        Ok(())
    };
    enqueue_during(&system, request, Box::pin(meanwhile)).await?;
    let grant = idle.is_granted().await?;
    let mut fetched = idle.consumer.take(&[(shard(), grant)]).await.remove(0)?;
    let lease = fetched.leases.pop().context("it is there when it is granted")?;
    assert_eq!((lease.id, lease.attempt), (id, 1));
    let _rescuer = system.scheduler();
    sleep(FORGOTTEN).await;
    assert_eq!(leased(&system).await?, 1, "the lease lasts as long as any other");
    system.index.settle(&shard(), &[lease.hand_back()]).await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_releases_the_worker() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let failed = enqueue_during(&system, refused(&system, tenant).await?, async {
        reaches_leased(&system, 1).await;
        Ok(())
    });
    assert!(failed.await.is_err(), "there is a job of that id");
    reaches_leased(&system, 0).await;
    assert!(virtual_time(&system, tenant).await?.abs() < 1e-9, "what did not run costs nothing");
    idle.finds_nothing().await?;
    system.producer.enqueue(request(&system, tenant)).await?;
    idle.is_granted().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_releases_the_worker() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let keyed = || {
        let idempotency = Idempotency { key: "key".to_owned(), fingerprint: vec![1], response: None };
        EnqueueRequest { idempotency: Some(idempotency), ..request(&system, tenant) }
    };
    assert!(matches!(system.producer.enqueue(keyed()).await?, Enqueued::Created));
    idle.is_granted().await?;
    idle.finds_nothing().await?;
    let replayed = enqueue_during(&system, keyed(), async {
        reaches_leased(&system, 2).await;
        Ok(())
    });
    assert!(matches!(replayed.await?, Enqueued::Replayed { .. }));
    reaches_leased(&system, 1).await;
    assert_eq!(idle.hears_by_now().await?, None, "there is nothing to be told");
    Ok(())
}

/// The index that knows of the lease may have been built anew meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_late_is_pushed() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    enqueue_during(&system, request(&system, tenant), async {
        reaches_leased(&system, 1).await;
        sleep(LATE).await;
        Ok(())
    })
    .await?;
    assert_eq!(idle.hears().await?, Notice::Wake(shard()));
    indexed_and_free(&system, 1).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_during_the_commit_is_not_waited_for() -> Result<()> {
    let (system, tenant) = scene().await?;
    let idle = Idle::start(&system, LEASE).await?;
    enqueue_during(&system, request(&system, tenant), async {
        reaches_leased(&system, 1).await;
        drop(idle);
        let gone = async || granted_channels(&system).await.ok()?.is_empty().then_some(());
        eventually(PATIENCE, "nobody listens", gone).await;
        Ok(())
    })
    .await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

/// Its process may live on for a while, but it takes nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_during_the_commit_is_not_granted_the_job() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    enqueue_during(&system, request(&system, tenant), async {
        reaches_leased(&system, 1).await;
        assert_eq!(idle.stops().await, None);
        Ok(())
    })
    .await?;
    indexed_and_free(&system, 1).await;
    assert_eq!(idle.stops().await, None, "it was not told");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_hears_of_what_was_granted_before() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    system.producer.enqueue(request(&system, tenant)).await?;
    // The message is under way or there.
    sleep(LATE / 6).await;
    let Some(Notice::Granted(_, grant)) = idle.stops().await else { panic!("the grant is lost") };
    assert_eq!(idle.stops().await, None);
    idle.consumer.refuse(&shard(), &grant).await?;
    indexed_and_free(&system, 1).await;
    Ok(())
}

/// Weights are paid for at once. What may stand against a start is for the push to judge, which plans a turn.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_heeded() -> Result<()> {
    let (system, tenant) = scene().await?;
    let idle = Idle::start(&system, LEASE).await?;
    // Weight, cap, rate, burst, paused.
    for (limits, is_reserved) in [("4 5 0 0 0", 0), ("4 0 9 9 0", 0), ("4 0 0 0 1", 0), ("4 0 0 0 0", 1)] {
        let mut command = redis::cmd("HSET");
        command.arg(format!("{}:limits", root(&system))).arg(tenant.as_uuid().as_bytes()).arg(limits);
        let _: () = command.query_async(&mut redis(&system).await?).await?;
        // Refused in the end, so that nothing stays behind.
        let request = refused(&system, tenant).await?;
        idle.finds_nothing().await?;
        let enqueued = enqueue_during(&system, request, async {
            sleep(LATE / 6).await;
            assert_eq!(leased(&system).await?, is_reserved, "{limits}");
            if is_reserved == 1 {
                let charged = virtual_time(&system, tenant).await?;
                assert!((charged - 0.25).abs() < 1e-9, "{charged}");
            }
            Ok(())
        });
        assert!(enqueued.await.is_err());
    }
    Ok(())
}
