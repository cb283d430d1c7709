//! PostgreSQL crashes and recovers: no process ends, nothing is lost, and repeating a request in
//! doubt is harmless.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use shared::{
    queue::{
        enqueue::EnqueueError,
        ledger::request::{EnqueueRequest, Enqueued, Idempotency},
    },
    tenancy::TenantId,
};
use tests::{
    eventually::eventually,
    postgres::{PostgresOptions, PrivatePostgres},
    system::TestSystem,
};
use uuid::Uuid;

use crate::queue::support::{LEASE, Ledger, PATIENCE};

/// A system on a private PostgreSQL. Only the server crashes, not the machine, so writes need not
/// reach the disk.
async fn start() -> Result<(PrivatePostgres, TestSystem, TenantId)> {
    let postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let redis_url = std::env::var_os("REDIS_URL").context("REDIS_URL is not set; bin/test sets it")?;
    let redis_url = redis_url.to_string_lossy().into_owned();
    let system = TestSystem::on(postgres.urls().clone(), redis_url, None).await?;
    let tenant = system.tenant("acme").await?;
    Ok((postgres, system, tenant))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_under_load_loses_nothing() -> Result<()> {
    let (mut postgres, system, tenant) = start().await?;
    let (scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    let jobs = (0..200).map(|_| system.job(tenant, "sleep", &json!({ "ms": 20 }))).collect();
    system.enqueue(jobs).await?;
    let mut ledger = Ledger::open(&system).await?;
    eventually(PATIENCE, "jobs have been completed", async || {
        (ledger.count("completed", 1).await.ok()? > 0).then_some(())
    })
    .await;

    postgres.stop_immediate().await?;
    let outage = enqueue(&system, tenant);
    let (answer, started) = tokio::join!(outage, postgres.start());
    started?;
    match answer {
        Ok((_, Enqueued::Created)) | Err(EnqueueError::Unavailable) => {}
        other => bail!("neither done nor unavailable: {other:?}"),
    }
    // What a client does without a response.
    let first = eventually(PATIENCE, "a repeat succeeds", async || enqueue(&system, tenant).await.ok()).await;
    let second = enqueue(&system, tenant).await?;
    assert_eq!(job(&first), job(&second));
    if let Ok(answer) = &answer {
        assert_eq!(job(answer), job(&first));
    }

    let mut ledger = Ledger::open(&system).await?;
    let completed = ledger.completed(201).await;
    assert!(completed >= 190, "the crash must not count as a failure of the jobs: only {completed} took one attempt");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

type Answer = (Uuid, Enqueued);

/// The same request under the same key each time.
async fn enqueue(system: &TestSystem, tenant: TenantId) -> Result<Answer, EnqueueError> {
    let job = system.job(tenant, "noop", &json!({}));
    let id = job.id;
    let idempotency = Idempotency { key: "in doubt".into(), fingerprint: b"body".to_vec(), response: None };
    Ok((id, system.producer.enqueue(EnqueueRequest { jobs: vec![job], idempotency: Some(idempotency) }).await?))
}

/// The job that a result refers to.
fn job((id, answer): &Answer) -> Uuid {
    match answer {
        Enqueued::Replayed { first_job, .. } => *first_job,
        Enqueued::Created | Enqueued::CreatedExcept(_) | Enqueued::KeyReused => *id,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_a_request_is_refused_as_unavailable() -> Result<()> {
    let (mut postgres, system, tenant) = start().await?;
    postgres.stop_fast().await?;
    let answer = tokio::time::timeout(Duration::from_secs(20), enqueue(&system, tenant)).await?;
    assert!(matches!(answer, Err(EnqueueError::Unavailable)), "{answer:?}");
    postgres.start().await?;
    let (_, answer) = eventually(PATIENCE, "it is accepted", async || enqueue(&system, tenant).await.ok()).await;
    assert!(matches!(answer, Enqueued::Created), "nothing was left behind: {answer:?}");
    Ok(())
}
