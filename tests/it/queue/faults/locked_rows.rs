//! Rows of one tenant locked by another transaction: only requests of that tenant wait for them.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use shared::{
    queue::{
        NewJob,
        dispatch::Consumer,
        enqueue::{EnqueueError, Producer},
        ledger::relations::{Relations, UniqueKey, UniqueUntil},
        ledger::request::{EnqueueRequest, Enqueued, Idempotency},
        repair::expiry,
    },
    tenancy::TenantId,
};
use sqlx::{Connection as _, Postgres, Transaction};
use tests::{eventually::eventually, http_sink::HttpSink, system::TestSystem, tcp_proxy::Mode};
use tokio::time::Instant;
use uuid::Uuid;

use crate::queue::support::{Ledger, PATIENCE, build_index, callback, far_ledger, indexed, reaches, shard};

/// Concurrent requests per tenant.
const REQUESTS: usize = 20;
/// The delay in each direction between a producer and PostgreSQL.
const DELAY: Duration = Duration::from_millis(10);

fn noop(system: &TestSystem, tenant: TenantId) -> NewJob {
    system.job(tenant, "noop", &json!({}))
}

fn related(system: &TestSystem, tenant: TenantId, relations: Relations) -> NewJob {
    NewJob { relations: Some(Box::new(relations)), ..noop(system, tenant) }
}

fn keyed(job: NewJob, key: &str) -> EnqueueRequest {
    let idempotency = Idempotency { key: key.into(), fingerprint: vec![1], response: None };
    EnqueueRequest { jobs: vec![job], idempotency: Some(idempotency) }
}

fn unkeyed(job: NewJob) -> EnqueueRequest {
    EnqueueRequest { jobs: vec![job], idempotency: None }
}

/// The result of a request, and when it arrived.
async fn answer(system: &TestSystem, request: EnqueueRequest) -> (Result<Enqueued, EnqueueError>, Instant) {
    (system.producer.enqueue(request).await, Instant::now())
}

/// A transaction that locks these jobs until it is dropped.
async fn lock<'a>(ledger: &'a mut Ledger, ids: &[Uuid]) -> Result<Transaction<'a, Postgres>> {
    let mut transaction = ledger.0.begin().await?;
    let locked: Vec<Uuid> = sqlx::query_scalar("select id from jobs where id = any($1) for update")
        .bind(ids)
        .fetch_all(&mut *transaction)
        .await?;
    assert_eq!(locked.len(), ids.len());
    Ok(transaction)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_in_flight_delays_only_its_own_requests() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    let mut ledger = Ledger::open(&system).await?;
    let mut holder = ledger.0.begin().await?;
    let insert = "insert into idempotency_keys (tenant_id, key, fingerprint, first_id) values ($1, 'key', '\\x01', $1)";
    sqlx::query(insert).bind(acme.as_uuid()).execute(&mut *holder).await?;

    let began = Instant::now();
    let ask = |request: EnqueueRequest| answer(&system, request);
    let blocked = join_all((0..REQUESTS).map(|_| ask(keyed(noop(&system, acme), "key"))));
    let own = join_all((0..REQUESTS).map(|number| ask(keyed(noop(&system, acme), &format!("key {number}")))));
    let others = join_all((0..REQUESTS).map(|_| ask(keyed(noop(&system, other), "key"))));
    let (blocked, own, others) = tokio::join!(blocked, own, others);
    let refused = blocked.iter().map(|(_, at)| *at).min().expect("there are blocked requests");
    for (answer, _) in &blocked {
        assert!(matches!(answer, Err(EnqueueError::KeyInFlight)), "{answer:?}");
    }
    assert!(own.iter().all(|(answer, _)| answer.is_ok()), "{own:?}");
    for (answer, at) in &others {
        assert!(matches!(answer, Ok(Enqueued::Created | Enqueued::Replayed { .. })), "{answer:?}");
        assert!(*at < refused, "the other tenant waited {:?}", *at - began);
    }
    holder.rollback().await?;
    // The tenant's requests are committed separately for a while, with the same result.
    let after = system.producer.enqueue(keyed(noop(&system, acme), "key")).await?;
    assert!(matches!(after, Enqueued::Created), "{after:?}");
    Ok(())
}

/// Each try of a request waits for the lock of its key, and requests that have not been tried wait
/// for those tries: none of that may take so long that a client is told of an outage.
#[tokio::test(flavor = "multi_thread")]
async fn requests_under_several_keys_in_flight_are_told_so() -> Result<()> {
    const KEYS: usize = 6;
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (db, proxy) = far_ledger(&system).await?;
    proxy.set(Mode::Delay(DELAY));
    let producer = Producer::start(&db, system.index.clone(), system.clock.clone());
    let mut ledger = Ledger::open(&system).await?;
    let mut holder = ledger.0.begin().await?;
    let insert = "insert into idempotency_keys (tenant_id, key, fingerprint, first_id)
                  select $1, 'key ' || number, '\\x01', $1 from generate_series(0, $2) as number";
    sqlx::query(insert).bind(tenant.as_uuid()).bind(i32::try_from(KEYS)?).execute(&mut *holder).await?;
    let requests = async |key: String| {
        for _ in 0..4 {
            let answer = producer.enqueue(keyed(noop(&system, tenant), &key)).await;
            assert!(matches!(answer, Err(EnqueueError::KeyInFlight)), "{key}: {answer:?}");
        }
    };
    join_all((0..KEYS).map(|number| requests(format!("key {number}")))).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_dependency_or_unique_key_delays_only_its_own_requests() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    let root = system.enqueue(vec![noop(&system, acme)]).await?[0];
    let mut ledger = Ledger::open(&system).await?;
    let mut holder = lock(&mut ledger, &[root]).await?;
    let insert = "insert into unique_keys (tenant_id, key, job_id) values ($1, 'held', $1)";
    sqlx::query(insert).bind(acme.as_uuid()).execute(&mut *holder).await?;
    let after = || Relations { after: vec![root], ..Relations::default() };
    let unique = |key: &str| {
        let unique = UniqueKey { key: key.into(), until: UniqueUntil::Final };
        Relations { unique: Some(unique), ..Relations::default() }
    };
    let ask = |request: EnqueueRequest| answer(&system, request);
    let blocked = join_all((0..4).map(|number| {
        let relations = if number % 2 == 0 { after() } else { unique("held") };
        ask(unkeyed(related(&system, acme, relations)))
    }));
    let others = join_all((0..REQUESTS).map(|number| {
        let tenant = if number % 2 == 0 { other } else { acme };
        ask(unkeyed(related(&system, tenant, unique(&format!("free {number}")))))
    }));
    let (blocked, others) = tokio::join!(blocked, others);
    for (answer, _) in &blocked {
        assert!(matches!(answer, Err(EnqueueError::Overloaded)), "{answer:?}");
    }
    assert!(others.iter().all(|(answer, _)| matches!(answer, Ok(Enqueued::Created))), "{others:?}");
    holder.rollback().await?;
    let created = system.producer.enqueue(unkeyed(related(&system, acme, after()))).await?;
    assert!(matches!(created, Enqueued::Created), "{created:?}");
    Ok(())
}

/// Leases of jobs whose end waits for a lock are renewed; the ends are written once, and nothing
/// runs again.
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_locked_jobs_are_written_later_and_delay_no_others() -> Result<()> {
    let lease = Duration::from_secs(2);
    let (system, sink) = (TestSystem::start().await?, HttpSink::start().await?);
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    let _scheduler = system.scheduler();
    let jobs = |tenant: TenantId, name: &str| -> Vec<NewJob> {
        (0..REQUESTS).map(|number| callback(&system, tenant, &sink, &format!("{name} {number}"))).collect()
    };
    let mut locked = system.enqueue(jobs(acme, "locked")).await?;
    let head = system.enqueue(vec![callback(&system, acme, &sink, "head")]).await?[0];
    let waiting = related(&system, acme, Relations { after: vec![head], ..Relations::default() });
    // The row of the head is not locked, but its end releases a locked dependent.
    locked.extend(system.enqueue(vec![waiting]).await?);
    let free = system.enqueue(jobs(acme, "free")).await?;
    let mut ledger = Ledger::open(&system).await?;
    let holder = lock(&mut ledger, &locked).await?;
    let worker = system.worker(8, lease);
    sink.wait_total(2 * REQUESTS + 1, PATIENCE).await;
    let others = system.enqueue(jobs(other, "other")).await?;
    for id in &others {
        reaches(&system, other, *id, "completed").await;
    }
    for id in &free {
        reaches(&system, acme, *id, "completed").await;
    }
    // Longer than a lease that is not renewed.
    let mut clock = Ledger::open(&system).await?;
    let since: f64 =
        sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8").fetch_one(&mut clock.0).await?;
    eventually(PATIENCE, "two leases have passed", async || {
        let mut clock = Ledger::open(&system).await.ok()?;
        let passed = "select extract(epoch from clock_timestamp())::float8 - $1 > 4";
        let passed: bool = sqlx::query_scalar(passed).bind(since).fetch_one(&mut clock.0).await.ok()?;
        passed.then_some(())
    })
    .await;
    holder.rollback().await?;
    for id in locked.iter().chain([&head]) {
        let job = reaches(&system, acme, *id, "completed").await;
        assert_eq!(job.attempt, 1, "no lease was lost");
    }
    assert_eq!(sink.total(), 3 * REQUESTS + 1, "each job ran once");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_job_is_rescued_later_and_delays_no_other_rescue() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    build_index(&system).await;
    let locked = system.enqueue(vec![noop(&system, acme)]).await?[0];
    let free = system.enqueue(vec![noop(&system, other)]).await?[0];
    indexed(&system, 2).await;
    let mut ledger = Ledger::open(&system).await?;
    let holder = lock(&mut ledger, &[locked]).await?;
    // A holder that never settles.
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), Duration::from_secs(1));
    assert_eq!(consumer.fetch(&shard(), 2).await?.leases.len(), 2);
    let _scheduler = system.scheduler();
    let attempt = async |tenant: TenantId, id: Uuid, attempt: i32| {
        eventually(PATIENCE, "the job is rescued", async || {
            let job = system.state(tenant, id).await.ok()??;
            (job.attempt == attempt).then_some(())
        })
        .await;
    };
    attempt(other, free, 2).await;
    assert_eq!(system.state(acme, locked).await?.map(|job| job.attempt), Some(1));
    holder.rollback().await?;
    attempt(acme, locked, 2).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_job_expires_later_and_delays_no_other() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    build_index(&system).await;
    let expired = |tenant: TenantId| {
        let expires_at = Some(system.clock.now() - Duration::from_secs(1));
        NewJob { expires_at, ..noop(&system, tenant) }
    };
    let locked = system.enqueue(vec![expired(acme)]).await?[0];
    let free = system.enqueue(vec![expired(other)]).await?[0];
    let mut ledger = Ledger::open(&system).await?;
    let holder = lock(&mut ledger, &[locked]).await?;
    assert_eq!(expiry::sweep(&system.system, &system.index).await?, 1);
    reaches(&system, other, free, "discarded").await;
    holder.rollback().await?;
    assert_eq!(expiry::sweep(&system.system, &system.index).await?, 1);
    reaches(&system, acme, locked, "discarded").await;
    Ok(())
}
