//! Follow-up of a job's end at the level of the engine: in the index, at a rescue, and for jobs
//! without relations.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::try_join_all;
use serde_json::json;
use shared::{
    queue::{
        NewJob,
        complete::{self, Finish, Outcome, Recorded},
        dispatch::Consumer,
        enqueue::Producer,
        ledger::relations::{Refusal, Relations, UniqueKey, UniqueUntil, follow_up_flags},
        ledger::request::{EnqueueRequest, Enqueued, Idempotency},
        repair::rescue,
    },
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem};
use uuid::Uuid;

use crate::queue::support::{LEASE, Ledger, PATIENCE, finishes::finish, indexed, queue, reaches, redis, shard};

fn noop(system: &TestSystem, tenant: TenantId) -> NewJob {
    system.job(tenant, "noop", &json!({}))
}

fn unique(system: &TestSystem, tenant: TenantId, key: &str) -> NewJob {
    let unique = UniqueKey { key: key.into(), until: UniqueUntil::Final };
    NewJob {
        relations: Some(Box::new(Relations { unique: Some(unique), ..Relations::default() })),
        ..noop(system, tenant)
    }
}

fn after(system: &TestSystem, tenant: TenantId, ids: &[Uuid]) -> NewJob {
    NewJob {
        relations: Some(Box::new(Relations { after: ids.to_vec(), ..Relations::default() })),
        ..noop(system, tenant)
    }
}

async fn hooks_of(ledger: &mut Ledger, id: Uuid) -> Result<i16> {
    Ok(sqlx::query_scalar("select hooks from jobs where id = $1").bind(id).fetch_one(&mut ledger.0).await?)
}

/// The number of rows that relations have left in the ledger.
#[derive(Debug, Default, PartialEq, Eq, sqlx::FromRow)]
struct RelationRows {
    unique_keys: i64,
    dependencies: i64,
    batches: i64,
}

async fn relation_rows(ledger: &mut Ledger) -> Result<RelationRows> {
    let counts = "select (select count(*) from unique_keys) as unique_keys,
                         (select count(*) from job_dependencies) as dependencies,
                         (select count(*) from batches) as batches";
    Ok(sqlx::query_as(counts).fetch_one(&mut ledger.0).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_dependent_is_never_in_the_index() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let root = system.enqueue(vec![noop(&system, tenant)]).await?[0];
    let dependent = system.enqueue(vec![after(&system, tenant, &[root])]).await?[0];
    // The scheduler rebuilds, sweeps, crawls and promotes.
    let _scheduler = system.scheduler();
    indexed(&system, 1).await;
    let mut connection = redis(&system).await?;
    let key = format!("{}:{{default}}:meta", system.prefix);
    redis::cmd("DEL").arg(&key).query_async::<()>(&mut connection).await?;
    indexed(&system, 1).await;
    eventually(PATIENCE, "the sweep has passed", async || {
        let old: bool = sqlx::query_scalar("select inserted_at < now() - interval '3 seconds' from jobs where id = $1")
            .bind(dependent)
            .fetch_one(&mut Ledger::open(&system).await.ok()?.0)
            .await
            .ok()?;
        old.then_some(())
    })
    .await;
    assert_eq!(system.index.depth(&queue()).await?.available, 1);
    // If the index contains the job anyway, the check at fetch does not let it run.
    let ledger_view = system.state(tenant, dependent).await?;
    assert_eq!(ledger_view.map(|job| job.state.as_str()), Some("scheduled"));
    let waiting = shared::queue::WaitingJob {
        id: dependent,
        tenant,
        priority: shared::queue::Priority::DEFAULT,
        run_at_ms: None,
    };
    system.index.push(&queue(), &[waiting]).await?;
    let fetched = Consumer::new(system.system.clone(), system.index.clone(), LEASE).fetch(&shard(), 10).await?;
    assert_eq!(fetched.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [root]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_releases_its_key_and_cancels_dependents() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut ledger = Ledger::open(&system).await?;
    let scheduler = system.scheduler();
    let root = system.enqueue(vec![unique(&system, tenant, "key")]).await?[0];
    let dependent = system.enqueue(vec![after(&system, tenant, &[root])]).await?[0];
    assert_eq!(hooks_of(&mut ledger, root).await?, follow_up_flags::UNIQUE_KEY | follow_up_flags::DEPENDENTS);
    sqlx::query("update jobs set crashes = 2 where id = $1").bind(root).execute(&mut ledger.0).await?;
    indexed(&system, 1).await;
    // A holder that never settles.
    let holder = Consumer::new(system.system.clone(), system.index.clone(), Duration::from_secs(1));
    let leases = holder.fetch(&shard(), 1).await?.leases;
    assert_eq!(leases.len(), 1);
    assert!(rescue::begin_quarantine(&system.system, &leases[0]).await?);
    reaches(&system, tenant, root, "discarded").await;
    reaches(&system, tenant, dependent, "cancelled").await;
    assert_eq!(relation_rows(&mut ledger).await?, RelationRows::default());
    scheduler.stop().await;
    Ok(())
}

/// A run that was leased before its follow-up flags were set.
#[tokio::test(flavor = "multi_thread")]
async fn follow_up_flags_set_during_a_run_apply_at_its_end() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let _scheduler = system.scheduler();
    let plain = system.enqueue(vec![noop(&system, tenant), noop(&system, tenant)]).await?;
    indexed(&system, 2).await;
    let leases = Consumer::new(system.system.clone(), system.index.clone(), LEASE).fetch(&shard(), 2).await?.leases;
    let dependent = system.enqueue(vec![after(&system, tenant, &plain[..1])]).await?[0];
    let completed = |lease: &shared::queue::Lease| {
        assert_eq!(lease.follow_up_flags, 0);
        finish(lease, Outcome::Completed { result: None })
    };
    let finishes: Vec<Finish> = leases.iter().map(completed).collect();
    let records = complete::record(&system.system, &finishes).await?;
    assert_eq!(records.recorded.len(), 2);
    assert!(records.recorded.values().all(|recorded| *recorded == Recorded::Final), "{:?}", records.recorded);
    assert_eq!(records.follow_up.waiting.iter().map(|(_, job)| job.id).collect::<Vec<_>>(), [dependent]);
    let again = complete::record(&system.system, &finishes).await?;
    assert!(again.recorded.values().all(|recorded| *recorded == Recorded::RefusedFinal), "{:?}", again.recorded);
    assert_eq!(again.follow_up, complete::Records::default().follow_up, "the follow-up happens once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_relations_leaves_only_its_row() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(2, LEASE));
    let id = system.enqueue(vec![noop(&system, tenant)]).await?[0];
    reaches(&system, tenant, id, "completed").await;
    let mut ledger = Ledger::open(&system).await?;
    assert_eq!(hooks_of(&mut ledger, id).await?, 0);
    assert_eq!(relation_rows(&mut ledger).await?, RelationRows::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_are_committed_with_their_business_transaction() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let (first, second) = (unique(&system, tenant, "key"), unique(&system, tenant, "key"));
    let mut transaction = system.tenants.begin(tenant).await?;
    assert_eq!(Producer::enqueue_in(&mut transaction, std::slice::from_ref(&first)).await?, []);
    drop(transaction);
    let mut ledger = Ledger::open(&system).await?;
    assert_eq!(relation_rows(&mut ledger).await?, RelationRows::default());

    let dependent = after(&system, tenant, &[second.id]);
    let mut transaction = system.tenants.begin(tenant).await?;
    let refused = Producer::enqueue_in(&mut transaction, &[second.clone(), dependent.clone()]).await?;
    assert_eq!(refused, []);
    let refused = Producer::enqueue_in(&mut transaction, std::slice::from_ref(&first)).await?;
    assert_eq!(refused[0].refusal, Refusal::Duplicate { holder: second.id });
    transaction.commit().await?;
    let (_scheduler, _worker) = (system.scheduler(), system.worker(2, LEASE));
    system.producer.announce(&[second.clone(), dependent.clone()]);
    reaches(&system, tenant, dependent.id, "completed").await;
    let request = EnqueueRequest { jobs: vec![first], idempotency: None };
    assert!(matches!(system.producer.enqueue(request).await?, Enqueued::Created));
    Ok(())
}

/// Repeats that share a commit with a refused request must not report success.
#[tokio::test(flavor = "multi_thread")]
async fn repeats_of_a_refused_request_are_refused_alike() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let holder = system.enqueue(vec![unique(&system, tenant, "held")]).await?[0];
    for _ in 0..5 {
        let answers = (0..30).map(|_| {
            let idempotency = Idempotency { key: "repeat".into(), fingerprint: b"body".to_vec(), response: None };
            let jobs = vec![unique(&system, tenant, "held")];
            system.producer.enqueue(EnqueueRequest { jobs, idempotency: Some(idempotency) })
        });
        for answer in try_join_all(answers).await? {
            let Enqueued::CreatedExcept(refused) = answer else { bail!("no such job exists: {answer:?}") };
            assert_eq!(refused[0].refusal, Refusal::Duplicate { holder });
        }
    }
    Ok(())
}
