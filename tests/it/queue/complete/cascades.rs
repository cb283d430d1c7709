//! Job ends that affect more jobs than one transaction may touch.

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{
        NewJob, announcement,
        control::{self, ControlOutcome},
        ledger::relations::{BatchPart, DependencyFailure},
        observe::explain::{self, Reason},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;
use uuid::Uuid;

use crate::queue::support::{
    LEASE, build_index, cancel,
    chains::{CHAIN, after, all_are, chain, states},
    reaches,
};

async fn redrive(system: &TestSystem, tenant: TenantId, id: Uuid) -> Result<ControlOutcome> {
    let mut transaction = system.tenants.begin(tenant).await?;
    let steered = control::redrive(&mut transaction, id).await?;
    transaction.commit().await?;
    if let ControlOutcome::Done(position) = &steered {
        announcement::redriven(&system.index, std::slice::from_ref(position)).await;
    }
    Ok(steered)
}

async fn reason(system: &TestSystem, tenant: TenantId, id: Uuid) -> Result<Option<Reason>> {
    let mut transaction = system.tenants.begin(tenant).await?;
    let explanation = explain::explain(&mut transaction, &system.index, id).await?;
    Ok(explanation.and_then(|explanation| explanation.reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_cancelled_in_steps_and_none_of_it_runs() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    build_index(&system).await;
    let chain = chain(&system, tenant, "noop").await?;
    let last = chain[CHAIN - 1];
    assert_eq!(reason(&system, tenant, last).await?, Some(Reason::WaitingOnJobs));
    cancel(&system, tenant, chain[0]).await?;
    let cancelled = states(&system).await?["cancelled"];
    assert!((2..=201).contains(&cancelled), "a bounded step: {cancelled}");
    let worker = system.worker(4, LEASE);
    assert_eq!(reason(&system, tenant, last).await?, Some(Reason::BeingCancelled));
    let border = usize::try_from(cancelled)? - 1;
    assert_eq!(redrive(&system, tenant, chain[border]).await?, ControlOutcome::Settling);
    assert!(matches!(redrive(&system, tenant, chain[0]).await?, ControlOutcome::Done(_)), "its dependents are handled");
    reaches(&system, tenant, chain[0], "completed").await;
    let _scheduler = system.scheduler();
    all_are(&system, &[("cancelled", CHAIN - 1), ("completed", 1)]).await?;
    assert!(matches!(redrive(&system, tenant, chain[border]).await?, ControlOutcome::Done(_)));
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_ignored_or_cancels_dependents_in_steps() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let head = NewJob { max_attempts: 1, ..system.job(tenant, "fail", &json!({})) };
    let mut jobs = vec![head.clone()];
    for number in 0..CHAIN {
        let mut job = after(&system, tenant, head.id);
        if number % 2 == 0
            && let Some(relations) = &mut job.relations
        {
            relations.on_dependency_failure = DependencyFailure::Run;
        }
        jobs.push(job);
    }
    system.enqueue(jobs).await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(8, LEASE));
    all_are(&system, &[("discarded", 1), ("completed", CHAIN / 2), ("cancelled", CHAIN / 2)]).await?;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_jobs_that_are_cancelled_in_steps() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let head = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    let batch = shared::ids::new_id(&system.clock);
    let mut jobs: Vec<NewJob> = (1..CHAIN).map(|_| after(&system, tenant, head)).collect();
    jobs.push(NewJob { relations: Some(Box::default()), ..system.job(tenant, "noop", &json!({})) });
    let last = jobs.len() - 1;
    for (number, job) in jobs.iter_mut().enumerate() {
        let part = if number == last { BatchPart::Completion(batch) } else { BatchPart::Member(batch) };
        job.relations.get_or_insert_default().batch = Some(part);
    }
    let completion = system.enqueue(jobs).await?[last];
    cancel(&system, tenant, head).await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(4, LEASE));
    reaches(&system, tenant, completion, "completed").await;
    all_are(&system, &[("cancelled", CHAIN), ("completed", 1)]).await?;
    worker.stop().await
}

/// A job submitted as a dependent while the cascade runs is cancelled at once, without doing any of
/// the cascade's work.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_dependent_is_cancelled_at_once_and_alone() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let head = system.enqueue(vec![system.job(tenant, "noop", &json!({}))]).await?[0];
    system.enqueue((0..CHAIN).map(|_| after(&system, tenant, head)).collect()).await?;
    cancel(&system, tenant, head).await?;
    let before = states(&system).await?;
    let late = system.enqueue(vec![after(&system, tenant, head)]).await?[0];
    reaches(&system, tenant, late, "cancelled").await;
    assert_eq!(states(&system).await?["cancelled"], before["cancelled"] + 1);
    let _scheduler = system.scheduler();
    all_are(&system, &[("cancelled", CHAIN + 2)]).await
}
