//! One tenant enqueues more than can be committed or pushed at once: other tenants' jobs do not
//! wait for it.
//!
//! Invariant: the tests compare the order of events, not their durations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use shared::{
    queue::{
        NewJob,
        enqueue::{EnqueueError, Producer},
        ledger::request::{EnqueueRequest, Enqueued},
    },
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem, tcp_proxy::Mode};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::queue::support::{Ledger, PATIENCE, build_index, far_index, far_ledger, redis, root};

/// Requests of the large tenant, each with [`BULK`] jobs.
const REQUESTS: usize = 30;
const BULK: usize = 500;
/// The delay in each direction between producer and Redis.
const DELAY: Duration = Duration::from_millis(10);
/// The delay in each direction between producer and PostgreSQL, where few requests can be committed
/// in the time that a client waits.
const FAR: Duration = Duration::from_millis(300);

fn jobs(system: &TestSystem, tenant: TenantId, count: usize) -> Vec<NewJob> {
    (0..count).map(|_| system.job(tenant, "noop", &json!({}))).collect()
}

/// The number of bulk requests completed while a request of another tenant with this many jobs is
/// in progress.
async fn answered_meanwhile(jobs_of_other: usize) -> Result<usize> {
    let system = TestSystem::start().await?;
    let (large, other) = (system.tenant("acme").await?, system.tenant("globex").await?);
    let request = |tenant, count| EnqueueRequest { jobs: jobs(&system, tenant, count), idempotency: None };
    let mut meanwhile = REQUESTS;
    // The first round also opens the connections, which takes longer than a commit group.
    for _ in 0..2 {
        let bulk: Vec<_> = (0..REQUESTS).map(|_| request(large, BULK)).collect();
        let (request, answered, mut requests) =
            (request(other, jobs_of_other), Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for request in bulk {
            let (producer, answered) = (system.producer.clone(), Arc::clone(&answered));
            requests.spawn(async move {
                let outcome = producer.enqueue(request).await;
                answered.fetch_add(1, Ordering::SeqCst);
                outcome
            });
        }
        // From here on the remaining bulk requests are queued.
        let some_answered = async || Some(answered.load(Ordering::SeqCst)).filter(|&answered| answered > 0);
        let before = eventually(PATIENCE, "the first bulk request is completed", some_answered).await;
        assert!(matches!(system.producer.enqueue(request).await?, Enqueued::Created));
        meanwhile = answered.load(Ordering::SeqCst) - before;
        for outcome in requests.join_all().await {
            assert!(matches!(outcome?, Enqueued::Created));
        }
    }
    Ok(meanwhile)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_request_does_not_wait_for_another_tenants_bulk() -> Result<()> {
    let meanwhile = answered_meanwhile(1).await?;
    assert!(meanwhile <= 10, "{meanwhile} of {REQUESTS} bulk requests were completed meanwhile");
    Ok(())
}

/// Two groups are in progress, and the request shares the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_request_waits_for_at_most_one_group_of_another_tenant() -> Result<()> {
    let meanwhile = answered_meanwhile(BULK).await?;
    assert!(meanwhile <= 12, "{meanwhile} of {REQUESTS} bulk requests were completed meanwhile");
    Ok(())
}

/// A tenant that sends more than can be committed is told so; the ledger is available.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_tenants_own_backlog_holds_up_are_refused_as_too_many() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (db, proxy) = far_ledger(&system).await?;
    let producer = Producer::start(&db, system.index.clone(), system.clock.clone());
    let send = async |_| {
        let jobs = jobs(&system, tenant, BULK);
        let first = jobs[0].id;
        (first, producer.enqueue(EnqueueRequest { jobs, idempotency: None }).await)
    };
    // Opens the connections.
    send(0).await.1?;
    proxy.set(Mode::Delay(FAR));
    let answers = join_all((0..2 * REQUESTS).map(send)).await;
    let refused: Vec<Uuid> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(EnqueueError::Overloaded)))
        .map(|(id, _)| *id)
        .collect();
    assert!(refused.len() >= REQUESTS, "{} of {} requests were refused as too many", refused.len(), answers.len());
    assert!(answers.iter().any(|(_, answer)| answer.is_ok()), "nothing was committed");
    producer.finish().await;
    let committed: i64 = sqlx::query_scalar("select count(*) from jobs where id = any($1)")
        .bind(refused)
        .fetch_one(&mut Ledger::open(&system).await?.0)
        .await?;
    assert_eq!(committed, 0, "refused requests were committed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_slow_link_pushes_do_not_wait_for_another_tenants_backlog() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let (large, other) = (system.tenant("acme").await?, system.tenant("globex").await?);
    let (index, proxy) = far_index(&system, PATIENCE).await?;
    proxy.set(Mode::Delay(DELAY));
    let producer = Producer::start(&system.system, index, system.clock.clone());
    producer.announce(&jobs(&system, large, 20_000));
    producer.announce(&jobs(&system, other, 3));
    let (root, mut redis) = (root(&system), redis(&system).await?);
    let flow = |tenant: TenantId| [format!("{root}:flow:").as_bytes(), tenant.as_uuid().as_bytes()].concat();
    let mut waiting = async |tenant| redis::cmd("ZCARD").arg(flow(tenant)).query_async::<usize>(&mut redis).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while waiting(other).await? < 3 {
        assert!(tokio::time::Instant::now() < deadline, "the jobs were not pushed");
    }
    let before = waiting(large).await?;
    assert!(before <= 2_000, "{before} jobs of the large tenant were pushed first");
    Ok(())
}
