//! What moves the virtual time of a tenant and of the system: long runs, corrections at the end of
//! a run, and jobs that are not due.

use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use shared::queue::{Lease, Settlement, dispatch::Consumer};
use tests::system::TestSystem;

use super::simulation::{Slots, assert_ratio, enqueue, tenants, weigh};
use crate::queue::support::{LEASE, build_index, indexed, queue, shard, virtual_time};

/// A tenant whose only job is due later does not count as active, so the system virtual time rises
/// with the active tenants.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_scheduled_for_later_does_not_hold_back_the_system_virtual_time() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 3).await?;
    let mut later = system.job(tenants[2], "noop", &json!({}));
    later.run_at = Some(system.clock.now() + TimeDelta::seconds(40));
    system.enqueue(vec![later]).await?;
    enqueue(&system, tenants[0], 700).await?;
    indexed(&system, 700).await;
    let mut slots = Slots::new(&system, 4);
    slots.run(1_000, |_| 10).await?;
    slots.take(&tenants);
    // If the system virtual time had not moved, this tenant would be served alone until it had
    // caught up.
    let left = system.index.depth(&queue()).await?.available;
    enqueue(&system, tenants[1], 300).await?;
    indexed(&system, left + 300).await;
    slots.run(1_500, |_| 10).await?;
    let served = slots.take(&tenants);
    assert_ratio(&served, 1.0);
    assert_eq!(served[2], 0);
    Ok(())
}

/// A long run is charged while it lasts, not only at its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_charged_while_it_lasts() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenants = tenants(&system, 2).await?;
    build_index(&system).await;
    for tenant in &tenants {
        weigh(&system, *tenant, 2).await?;
        enqueue(&system, *tenant, 100).await?;
    }
    indexed(&system, 200).await;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let first = consumer.fetch(&shard(), 2).await?.leases;
    let long: Vec<_> = first.iter().filter(|lease| lease.tenant == tenants[0]).collect();
    let [long] = long.as_slice() else { panic!("one of each: {first:?}") };
    // The same run time reported twice is charged once.
    for _ in 0..2 {
        system.index.renew(&shard(), LEASE, &[(long, Duration::from_mins(1))]).await?;
    }
    let next = consumer.fetch(&shard(), 40).await?.leases;
    assert!(next.iter().all(|lease| lease.tenant == tenants[1]), "60 s are more than 40 estimates");
    // The job ran for as long as it was charged, so its end changes nothing.
    let settle = |ran| Settlement { ran: Some(ran), again: None, ..long.release() };
    system.index.settle(&shard(), &[settle(Duration::from_mins(1))]).await?;
    let used = virtual_time(&system, tenants[0]).await?;
    assert!((used - 30_000.0).abs() < 1_000.0, "60 s over a weight of 2 are {used} ms of virtual time");
    Ok(())
}

/// Many leases are out at once, each charged too much. If the excess were refunded, the second
/// tenant would wait for that long while the first is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_moves_no_tenant_behind_the_system_virtual_time() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenants = tenants(&system, 2).await?;
    let [first, second] = tenants.as_slice() else { panic!("two tenants: {tenants:?}") };
    build_index(&system).await;
    enqueue(&system, *first, 20).await?;
    indexed(&system, 20).await;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let ran = |lease: &Lease, ran| Settlement { ran: Some(ran), again: None, ..lease.release() };
    let long = consumer.fetch(&shard(), 1).await?.leases;
    system.index.settle(&shard(), &[ran(&long[0], Duration::from_secs(10))]).await?;
    let mut leases = consumer.fetch(&shard(), 10).await?.leases;
    leases.extend(consumer.fetch(&shard(), 1).await?.leases);
    enqueue(&system, *second, 1).await?;
    indexed(&system, 9).await;
    let joined = virtual_time(&system, *second).await?;
    assert!(joined > 20_000.0, "the second tenant did not join at the system virtual time, but at {joined}");
    let (short, back) = leases.split_at(5);
    let settlements = short.iter().map(|lease| ran(lease, Duration::from_millis(1)));
    let settlements: Vec<_> = settlements.chain(back.iter().map(Lease::release)).collect();
    system.index.settle(&shard(), &settlements).await?;
    let back_at = virtual_time(&system, *first).await?;
    assert!(back_at >= joined, "{back_at} is behind {joined}");
    Ok(())
}

/// Switching tenants costs more than a job of a tenth of a millisecond, so such jobs share a
/// service round. Longer jobs are taken one by one.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_far_below_a_millisecond_share_a_service_round() -> Result<()> {
    // At the end of a round, virtual times may differ only in the last digit.
    for (ran, turn) in [(Duration::from_micros(100), 9..=11), (Duration::from_micros(700), 1..=2)] {
        let system = TestSystem::start().await?;
        build_index(&system).await;
        let tenants = tenants(&system, 2).await?;
        for tenant in &tenants {
            weigh(&system, *tenant, 1).await?;
            enqueue(&system, *tenant, 50).await?;
        }
        indexed(&system, 100).await;
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
        let settle = |lease: &Lease| Settlement { ran: Some(ran), again: None, ..lease.release() };
        let first = consumer.fetch(&shard(), 2).await?.leases;
        system.index.settle(&shard(), &first.iter().map(settle).collect::<Vec<_>>()).await?;
        let leases = consumer.fetch(&shard(), 40).await?.leases;
        let taken: Vec<usize> = leases.chunk_by(|one, other| one.tenant == other.tenant).map(<[_]>::len).collect();
        assert!(taken.iter().all(|jobs| turn.contains(jobs)), "{taken:?} of {ran:?} each taken in a round");
    }
    Ok(())
}
