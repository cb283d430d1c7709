//! The cost of a start: jobs that take next to no worker time are charged for dispatch and
//! settlement.
//!
//! Invariant: no worker and no clock take part. The tests lease and settle themselves, and set what
//! a worker would have measured.

use std::time::Duration;

use anyhow::Result;
use shared::queue::{Lease, Settlement, dispatch::Consumer};
use tests::system::TestSystem;

use super::simulation::{enqueue, weigh};
use crate::queue::support::{LEASE, build_index, indexed, shard, virtual_time};

const NO_TIME: Duration = Duration::from_micros(10);
const START: Duration = Duration::from_millis(4);

fn consumer(system: &TestSystem) -> Consumer {
    Consumer::new(system.system.clone(), system.index.clone(), LEASE)
}

fn end(lease: &Lease, ran: Option<Duration>) -> Settlement {
    Settlement { ran, again: None, ..lease.release() }
}

/// The number of rounds, of 20, in which a quiet tenant's job of 20 ms is leased at once despite
/// another tenant's backlog of jobs that take no time.
async fn served_at_once(start: Duration) -> Result<usize> {
    let system = TestSystem::start().await?;
    system.index.start_cost().set(start);
    build_index(&system).await;
    let (flooder, quiet) = (system.tenant("flooder").await?, system.tenant("quiet").await?);
    enqueue(&system, flooder, 1_000).await?;
    indexed(&system, 1_000).await;
    let (consumer, mut served) = (consumer(&system), 0);
    for round in 0..=20 {
        // The flood has started before the quiet tenant's first job is enqueued.
        if round > 0 {
            enqueue(&system, quiet, 1).await?;
            indexed(&system, 1_000 - 19 * (round - 1)).await;
        }
        let wanted = if round > 0 { 20 } else { 1 };
        let leases = consumer.fetch(&shard(), wanted).await?.leases;
        served += usize::from(leases.iter().any(|lease| lease.tenant == quiet));
        let ran = |lease: &Lease| if lease.tenant == quiet { Duration::from_millis(20) } else { NO_TIME };
        let ends: Vec<_> = leases.iter().map(|lease| end(lease, Some(ran(lease)))).collect();
        system.index.settle(&shard(), &ends).await?;
    }
    Ok(served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_tenant_is_served_at_once_beside_jobs_that_take_no_time() -> Result<()> {
    assert_eq!(served_at_once(START).await?, 20);
    let without = served_at_once(Duration::ZERO).await?;
    assert!(without < 5, "charged for run time alone, the quiet tenant waits for the flood: {without} of 20");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_did_not_run_is_charged_its_start() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenant = system.tenant("acme").await?;
    weigh(&system, tenant, 2).await?;
    enqueue(&system, tenant, 20).await?;
    indexed(&system, 20).await;
    for (start, charged) in [(Duration::ZERO, 0.0), (START, 20.0)] {
        system.index.start_cost().set(start);
        let before = virtual_time(&system, tenant).await?;
        let leases = consumer(&system).fetch(&shard(), 10).await?.leases;
        let unrun: Vec<_> = leases.iter().map(|lease| end(lease, None)).collect();
        system.index.settle(&shard(), &unrun).await?;
        let more = virtual_time(&system, tenant).await? - before;
        assert!((more - charged).abs() < 0.1, "10 starts of {start:?} over a weight of 2 moved it by {more} ms");
    }
    Ok(())
}

/// Many leases are out at once: refunding them would put the tenant ahead of all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_falling_start_cost_is_not_refunded() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenant = system.tenant("acme").await?;
    enqueue(&system, tenant, 7).await?;
    indexed(&system, 7).await;
    system.index.start_cost().set(Duration::from_millis(40));
    let first = consumer(&system).fetch(&shard(), 1).await?.leases;
    system.index.settle(&shard(), &[end(&first[0], Some(NO_TIME))]).await?;
    let before = virtual_time(&system, tenant).await?;
    let leases = consumer(&system).fetch(&shard(), 6).await?.leases;
    let at_lease = virtual_time(&system, tenant).await? - before;
    assert!((at_lease - 240.0).abs() < 0.1, "six starts of 40 ms: {at_lease}");
    system.index.start_cost().set(Duration::from_millis(1));
    let mut ends: Vec<_> = leases.iter().map(|lease| end(lease, Some(NO_TIME))).collect();
    ends[0].ran = Some(Duration::from_millis(100));
    system.index.settle(&shard(), &ends).await?;
    let in_the_end = virtual_time(&system, tenant).await? - before;
    assert!((in_the_end - 300.0).abs() < 0.1, "five starts and a run of 100 ms: {in_the_end}");
    Ok(())
}
