//! Busy workers serve tenants without running jobs: by direct dispatch, and with the permits
//! reserved for them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::{
    queue::{FetchScope, Notice, Settlement},
    tenancy::TenantId,
};
use tests::{eventually::eventually, system::TestSystem};
use tokio::time::sleep;

use crate::queue::support::{
    LEASE, PATIENCE,
    bare_engine::{Idle, commit, scene},
    shard,
};

/// At most one notification about newly active tenants is published in 5 ms; after this time there
/// may be another one.
const NEXT_NOTICE: Duration = Duration::from_millis(20);

/// One tenant has ten jobs, one of them dispatched directly to the worker; two other tenants have
/// none.
async fn busy_scene() -> Result<(TestSystem, TenantId, [TenantId; 2], Idle)> {
    let (system, tenant) = scene().await?;
    let newly_active = [system.tenant("newly_active").await?, system.tenant("another").await?];
    let mut busy = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 10).await?;
    busy.direct_dispatch().await?;
    assert_eq!(busy.next_notice().await?, Notice::Wake(shard()));
    Ok((system, tenant, newly_active, busy))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_receives_the_first_job_of_a_newly_active_tenant() -> Result<()> {
    let (system, tenant, newly_active, mut busy) = busy_scene().await?;
    busy.fetch_next(2, FetchScope::Next).await?;
    commit(&system, newly_active[0], 1).await?;
    assert_eq!(busy.next_notice().await?, Notice::NewlyActive(shard()), "the worker has no free permit");
    busy.fetch_next(2, FetchScope::NextAndNewlyActive).await?;
    commit(&system, tenant, 1).await?;
    sleep(NEXT_NOTICE).await;
    let id = commit(&system, newly_active[1], 1).await?[0];
    let dispatch = busy.direct_dispatch().await?;
    let lease =
        busy.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    assert_eq!((lease.id, lease.tenant), (id, newly_active[1]), "tenants that already had work cause no notification");
    Ok(())
}

/// A worker's reserved permits are for newly active tenants: see `worker/src/capacity/slots.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn a_reserved_permit_leases_one_job_of_each_tenant_with_nothing_running() -> Result<()> {
    let (system, tenant, newly_active, mut busy) = busy_scene().await?;
    busy.fetch_next(2, FetchScope::Next).await?;
    commit(&system, newly_active[0], 3).await?;
    assert_eq!(busy.next_notice().await?, Notice::NewlyActive(shard()));
    let leases = busy.fetch_newly_active().await?.leases;
    assert_eq!(leases.iter().map(|lease| lease.tenant).collect::<Vec<_>>(), [newly_active[0]]);
    let nothing = busy.fetch_newly_active().await?;
    assert_eq!((nothing.taken, nothing.next), (0, None), "both tenants have running jobs");
    // No worker is idle, so jobs of tenants that already have work cause neither a notification nor
    // a direct dispatch.
    commit(&system, tenant, 1).await?;
    commit(&system, newly_active[0], 1).await?;
    sleep(NEXT_NOTICE).await;
    let id = commit(&system, newly_active[1], 2).await?[0];
    let dispatch = busy.direct_dispatch().await?;
    let dispatched =
        busy.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    assert_eq!((dispatched.id, dispatched.tenant), (id, newly_active[1]));
    system.index.settle(&shard(), &[leases[0].release()]).await?;
    assert_eq!(busy.fetch_newly_active().await?.taken, 1);
    Ok(())
}

/// Otherwise the tenant with the least virtual time would be served first.
#[tokio::test(flavor = "multi_thread")]
async fn a_reserved_permit_is_not_used_for_tenants_with_running_jobs() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut busy = Idle::start(&system, LEASE).await?;
    commit(&system, tenant, 1).await?;
    busy.direct_dispatch().await?;
    assert_eq!(busy.fetch_newly_active().await?.taken, 0);
    commit(&system, tenant, 1).await?;
    assert_eq!(busy.next_notice().await?, Notice::Wake(shard()), "the job is not dispatched directly");
    let newly_active = system.tenant("newly_active").await?;
    let first = commit(&system, newly_active, 1).await?[0];
    let dispatch = busy.direct_dispatch().await?;
    assert_eq!(dispatch.job(), first);
    // Such a tenant is announced at most once in 5 ms, and only while nothing of it waits; a worker
    // that takes only newly active tenants must not miss it.
    let second = commit(&system, newly_active, 1).await?[0];
    let lease =
        busy.consumer.accept(&[(shard(), dispatch)]).await.remove(0)?.leases.pop().context("direct dispatch")?;
    system.index.settle(&shard(), &[Settlement { again: None, ..lease.release() }]).await?;
    let taken = busy.fetch_newly_active().await?.leases;
    assert_eq!(taken.iter().map(|lease| lease.id).collect::<Vec<_>>(), [second]);
    system.index.settle(&shard(), &[taken[0].release()]).await?;
    commit(&system, newly_active, 1).await?;
    let dispatched = loop {
        match busy.next_notice().await? {
            Notice::Dispatched(_, dispatch) => break dispatch.job(),
            other => assert_eq!(other, Notice::NewlyActive(shard()), "about the second job"),
        }
    };
    assert_eq!(dispatched, second, "the tenant has a waiting job and none running");
    Ok(())
}

/// A busy worker never replaces an idle worker's ready mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_does_not_replace_an_idle_workers_ready_mark() -> Result<()> {
    let (system, tenant) = scene().await?;
    let mut busy = Idle::start(&system, LEASE).await?;
    let mut idle = Idle::start(&system, LEASE).await?;
    let mut soon = system.job(tenant, "noop", &json!({}));
    let run_at = system.clock.now() + Duration::from_millis(300);
    soon.run_at = Some(run_at);
    system.enqueue(vec![soon]).await?;
    assert_eq!(idle.next_notice().await?, Notice::Wake(shard()), "a job is due soon");
    idle.finds_nothing().await?;
    eventually(PATIENCE, "the job is due", async || (system.clock.now() > run_at).then_some(())).await;
    // Due by the clock of Redis, too. A fetch that comes too early would set a ready mark.
    sleep(Duration::from_millis(20)).await;
    busy.fetch_next(1, FetchScope::NextAndNewlyActive).await?;
    commit(&system, tenant, 1).await?;
    idle.direct_dispatch().await?;
    assert_eq!(busy.next_notice().await?, Notice::Wake(shard()), "only about the job that was due soon");
    Ok(())
}
