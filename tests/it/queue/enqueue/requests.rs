//! Committing jobs: many concurrent requests, keys that make a repeat harmless, and jobs inside a
//! business transaction.

use std::sync::Arc;

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use shared::{
    queue::{
        NewJob,
        enqueue::{EnqueueError, Producer},
        ledger::request::{EnqueueRequest, Enqueued, Idempotency},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;
use uuid::Uuid;

use crate::queue::support::{LEASE, Ledger, reaches};

fn noop(system: &TestSystem, tenant: TenantId) -> NewJob {
    system.job(tenant, "noop", &json!({}))
}

async fn enqueue(system: &TestSystem, job: NewJob) -> Result<Enqueued, EnqueueError> {
    system.producer.enqueue(EnqueueRequest { jobs: vec![job], idempotency: None }).await
}

async fn enqueue_keyed(
    system: &TestSystem,
    tenant: TenantId,
    key: &str,
    body: &str,
) -> Result<(Uuid, Enqueued), EnqueueError> {
    let job = noop(system, tenant);
    let id = job.id;
    let idempotency = Idempotency { key: key.into(), fingerprint: body.into(), response: None };
    let request = EnqueueRequest { jobs: vec![job], idempotency: Some(idempotency) };
    Ok((id, system.producer.enqueue(request).await?))
}

async fn jobs(ledger: &mut Ledger) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from jobs").fetch_one(&mut ledger.0).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_arrive_together_share_commits() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let requests = (0..200).map(|_| enqueue(&system, noop(&system, tenant)));
    for answer in join_all(requests).await {
        assert!(matches!(answer?, Enqueued::Created));
    }
    let mut ledger = Ledger::open(&system).await?;
    // `inserted_at` defaults to the time of the transaction.
    let (rows, commits): (i64, i64) =
        sqlx::query_as("select count(*), count(distinct inserted_at) from jobs").fetch_one(&mut ledger.0).await?;
    assert_eq!(rows, 200);
    assert!(commits <= 100, "{commits} commits for 200 requests");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_sent_fifty_times_at_once_makes_one_job() -> Result<()> {
    let system = Arc::new(TestSystem::start().await?);
    let tenant = system.tenant("acme").await?;
    let storm = (0..50).map(|_| {
        let system = Arc::clone(&system);
        tokio::spawn(async move { enqueue_keyed(&system, tenant, "key", "body").await })
    });
    let (mut created, mut replayed) = (Vec::new(), Vec::new());
    for answer in join_all(storm).await {
        match answer?? {
            (id, Enqueued::Created) => created.push(id),
            (_, Enqueued::Replayed { first_job, .. }) => replayed.push(first_job),
            (_, Enqueued::KeyReused) => panic!("the body was the same"),
            (_, Enqueued::CreatedExcept(refused)) => panic!("the job has no relations: {refused:?}"),
        }
    }
    assert_eq!(created.len(), 1);
    assert_eq!(replayed.len(), 49);
    assert!(replayed.iter().all(|id| *id == created[0]), "every repeat returns the same job");
    assert_eq!(jobs(&mut Ledger::open(&system).await?).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_bound_to_its_body_and_its_tenant() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    assert!(matches!(enqueue_keyed(&system, acme, "key", "body").await?.1, Enqueued::Created));
    assert!(matches!(enqueue_keyed(&system, acme, "key", "another body").await?.1, Enqueued::KeyReused));
    assert!(matches!(enqueue_keyed(&system, acme, "another key", "body").await?.1, Enqueued::Created));
    assert!(matches!(enqueue_keyed(&system, other, "key", "another body").await?.1, Enqueued::Created));
    assert_eq!(jobs(&mut Ledger::open(&system).await?).await?, 3);
    Ok(())
}

/// The key exists when the statement that commits a group leaves its request out, and has expired
/// by the time its stored response is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_between_two_statements_fails_no_other_request() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    enqueue_keyed(&system, tenant, "key", "body").await?;
    let mut ledger = Ledger::open(&system).await?;
    let expires = "
        create function expire() returns trigger language plpgsql security definer as
            $$ begin delete from idempotency_keys; return new; end $$;
        create trigger expire before insert on jobs for each row execute function expire()";
    sqlx::raw_sql(expires).execute(&mut ledger.0).await?;
    let others = join_all((0..60).map(|_| enqueue(&system, noop(&system, tenant))));
    let (keyed, others) = tokio::join!(enqueue_keyed(&system, tenant, "key", "body"), others);
    // In a group of its own it is a replay.
    let replayed = match keyed?.1 {
        Enqueued::Created => 0,
        Enqueued::Replayed { .. } => 1,
        other => panic!("the body was the same: {other:?}"),
    };
    for answer in others {
        assert!(matches!(answer?, Enqueued::Created));
    }
    assert_eq!(jobs(&mut ledger).await?, 62 - replayed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_rolled_back_with_its_transaction() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let mut transaction = system.tenants.begin(tenant).await?;
    Producer::enqueue_in(&mut transaction, &[noop(&system, tenant)]).await?;
    drop(transaction);
    assert_eq!(jobs(&mut ledger).await?, 0);

    let (_scheduler, _worker) = (system.scheduler(), system.worker(1, LEASE));
    let job = [noop(&system, tenant)];
    let mut transaction = system.tenants.begin(tenant).await?;
    Producer::enqueue_in(&mut transaction, &job).await?;
    transaction.commit().await?;
    system.producer.announce(&job);
    reaches(&system, tenant, job[0].id, "completed").await;
    assert_eq!(jobs(&mut ledger).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_no_job_of_another_tenant() -> Result<()> {
    let system = TestSystem::start().await?;
    let (acme, other) = (system.tenant("acme").await?, system.tenant("other").await?);
    let mut transaction = system.tenants.begin(acme).await?;
    let refused = Producer::enqueue_in(&mut transaction, &[noop(&system, other)]).await;
    let code = refused.as_ref().err().and_then(|error| error.as_database_error()?.code());
    assert_eq!(code.as_deref(), Some("42501"), "row level security refuses it: {refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_fails_alone() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let requests = (0..40).map(|at| {
        let mut job = noop(&system, tenant);
        if at == 20 {
            // PostgreSQL's text type cannot hold this.
            job.kind = "no\0op".into();
        }
        enqueue(&system, job)
    });
    let answers = join_all(requests).await;
    let refused: Vec<usize> = (0..40).filter(|at| answers[*at].is_err()).collect();
    assert_eq!(refused, [20]);
    assert!(matches!(answers[20], Err(EnqueueError::Ledger(_))), "{:?}", answers[20]);
    assert_eq!(jobs(&mut Ledger::open(&system).await?).await?, 39);
    Ok(())
}
