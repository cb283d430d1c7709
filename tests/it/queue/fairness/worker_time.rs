//! Worker time is shared by weight and measured run time, even if tenants try to look small, idle
//! or urgent.

use anyhow::Result;
use serde_json::json;
use shared::queue::Priority;
use tests::system::TestSystem;

use super::simulation::{Slots, assert_ratio, enqueue, tenants, weigh};
use crate::queue::support::{build_index, indexed, queue};

/// The Jain index of worker time over weight: 1 when all shares are exact.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of a short simulation")]
fn jain(served: &[u64], weights: &[i32]) -> f64 {
    let shares: Vec<f64> = served.iter().zip(weights).map(|(&ms, &weight)| ms as f64 / f64::from(weight)).collect();
    let (sum, squares): (f64, f64) = (shares.iter().sum(), shares.iter().map(|share| share * share).sum());
    sum * sum / (shares.len() as f64 * squares)
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_time_is_shared_by_weight_whatever_the_length_of_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 8).await?;
    let (weights, lengths) = ([1, 2, 3, 4, 5, 6, 7, 8], [100, 40, 1, 70, 5, 20, 2, 10]);
    // Each tenant has more work than it can get done.
    let total_ms = 8_000;
    let mut jobs = 0;
    for ((&tenant, &weight), &length) in tenants.iter().zip(&weights).zip(&lengths) {
        weigh(&system, tenant, weight).await?;
        let share = usize::try_from(4 * total_ms * u64::try_from(weight)? / 36 / length)? + 50;
        enqueue(&system, tenant, share).await?;
        jobs += share as u64;
    }
    indexed(&system, jobs).await;
    let mut slots = Slots::new(&system, 4);
    let length = |tenant| lengths[tenants.iter().position(|one| *one == tenant).expect("one of ours")];
    // The length of jobs is learned from the first ones.
    slots.run(500, length).await?;
    slots.take(&tenants);
    slots.run(total_ms, length).await?;
    let served = slots.take(&tenants);
    let index = jain(&served, &weights);
    assert!(index >= 0.98, "{index}: {served:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_weight_applies_to_waiting_jobs() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 2).await?;
    for &tenant in &tenants {
        enqueue(&system, tenant, 600).await?;
    }
    indexed(&system, 1_200).await;
    let mut slots = Slots::new(&system, 4);
    slots.run(1_000, |_| 10).await?;
    assert_ratio(&slots.take(&tenants), 1.0);
    weigh(&system, tenants[1], 3).await?;
    slots.run(2_000, |_| 10).await?;
    assert_ratio(&slots.take(&tenants), 3.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idleness_earns_no_credit() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 2).await?;
    enqueue(&system, tenants[0], 700).await?;
    enqueue(&system, tenants[1], 1).await?;
    indexed(&system, 701).await;
    let mut slots = Slots::new(&system, 4);
    // The second tenant is idle for nearly all of this time.
    slots.run(1_000, |_| 10).await?;
    slots.take(&tenants);
    let left = system.index.depth(&queue()).await?.available;
    enqueue(&system, tenants[1], 300).await?;
    indexed(&system, left + 300).await;
    slots.run(1_500, |_| 10).await?;
    assert_ratio(&slots.take(&tenants), 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_alone_gets_every_slot() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 2).await?;
    weigh(&system, tenants[0], 1).await?;
    weigh(&system, tenants[1], 1_000).await?;
    enqueue(&system, tenants[0], 100).await?;
    enqueue(&system, tenants[1], 1).await?;
    indexed(&system, 101).await;
    let mut slots = Slots::new(&system, 20);
    slots.run(50, |_| 10).await?;
    assert_eq!(slots.take(&tenants), [990, 10], "100 runs of 10 ms in 50 ms over 20 slots, none of them ever free");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn splitting_work_over_kinds_and_priorities_gains_nothing() -> Result<()> {
    let system = TestSystem::start().await?;
    build_index(&system).await;
    let tenants = tenants(&system, 2).await?;
    enqueue(&system, tenants[0], 300).await?;
    let kinds = [("noop", json!({})), ("sleep", json!({ "ms": 1 })), ("spin", json!({ "ms": 1 }))];
    let split = (0..300).map(|at| {
        let (kind, args) = &kinds[at % kinds.len()];
        let mut job = system.job(tenants[1], kind, args);
        job.priority = Priority::new(i16::try_from(at % 4).expect("small") + 1).expect("1 to 4");
        job
    });
    system.enqueue(split.collect()).await?;
    indexed(&system, 600).await;
    let mut slots = Slots::new(&system, 4);
    slots.run(1_000, |_| 10).await?;
    assert_ratio(&slots.take(&tenants), 1.0);
    Ok(())
}
