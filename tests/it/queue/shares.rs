//! Fair shares by weight and measured run time, even if tenants try to look small, idle or urgent.
//!
//! Invariant: no worker and no real clock take part. The tests lease and settle themselves, in
//! simulated time kept by [`Slots`], so the measurements do not depend on the machine.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use anyhow::Result;
use chrono::TimeDelta;
use serde_json::json;
use shared::{
    queue::{
        Priority, Settlement,
        dispatch::{Consumer, Lease},
        limits::{Limiter, QueueScope, ledger::LimitRow},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;

use super::support::{LEASE, build_index, indexed, queue, shard, virtual_time};

/// A worker's slots in simulated time.
struct Slots<'a> {
    system: &'a TestSystem,
    consumer: Consumer,
    size: usize,
    now_ms: u64,
    running: BinaryHeap<Reverse<(u64, usize)>>,
    leases: Vec<(Lease, u64)>,
    /// Worker time used by each tenant.
    served_ms: BTreeMap<TenantId, u64>,
}

impl<'a> Slots<'a> {
    fn new(system: &'a TestSystem, size: usize) -> Self {
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
        let (running, leases, served_ms) = (BinaryHeap::new(), Vec::new(), BTreeMap::new());
        Self { system, consumer, size, now_ms: 0, running, leases, served_ms }
    }

    /// Until `until_ms`: fills the free slots with jobs of length `length_ms`, then advances the
    /// time to the next end.
    async fn run(&mut self, until_ms: u64, length_ms: impl Fn(TenantId) -> u64) -> Result<()> {
        while self.now_ms < until_ms {
            let free = self.size - self.running.len();
            if free > 0 {
                for lease in self.consumer.fetch(&shard(), free).await?.leases {
                    let length_ms = length_ms(lease.tenant);
                    *self.served_ms.entry(lease.tenant).or_default() += length_ms;
                    self.running.push(Reverse((self.now_ms + length_ms, self.leases.len())));
                    self.leases.push((lease, length_ms));
                }
            }
            let Some(Reverse((ends_ms, _))) = self.running.peek() else { return Ok(()) };
            self.now_ms = *ends_ms;
            self.settle_ended().await?;
        }
        Ok(())
    }

    async fn settle_ended(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        while let Some(Reverse((ends_ms, at))) = self.running.peek().copied().filter(|top| top.0.0 <= self.now_ms) {
            debug_assert!(ends_ms <= self.now_ms);
            self.running.pop();
            let (lease, length_ms) = &self.leases[at];
            let ran = Some(Duration::from_millis(*length_ms));
            ended.push(Settlement { id: lease.id, token: lease.token, ran, again: None });
        }
        Ok(self.system.index.settle(&shard(), &ended).await?)
    }

    /// The worker time of each tenant since the last call, in ms.
    fn take(&mut self, tenants: &[TenantId]) -> Vec<u64> {
        let served = std::mem::take(&mut self.served_ms);
        tenants.iter().map(|tenant| served.get(tenant).copied().unwrap_or_default()).collect()
    }
}

async fn enqueue(system: &TestSystem, tenant: TenantId, jobs: usize) -> Result<()> {
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    Ok(())
}

async fn weigh(system: &TestSystem, tenant: TenantId, weight: i32) -> Result<()> {
    let limiter = Limiter::new(system.system.clone(), system.index.clone());
    let row = LimitRow { weight: Some(weight), ..LimitRow::default() };
    Ok(limiter.limit_tenant(tenant, &QueueScope::One(queue()), &row, false, &[queue()]).await?)
}

async fn tenants(system: &TestSystem, count: usize) -> Result<Vec<TenantId>> {
    let mut tenants = Vec::new();
    for at in 0..count {
        tenants.push(system.tenant(&format!("tenant-{at}")).await?);
    }
    Ok(tenants)
}

fn assert_ratio(served: &[u64], wanted: f64) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a short simulation")]
    let ratio = served[1] as f64 / served[0] as f64;
    assert!((wanted * 0.85..wanted * 1.15).contains(&ratio), "{served:?}: {ratio}, not {wanted}");
}

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
async fn a_new_weight_acts_on_what_waits_already() -> Result<()> {
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
async fn a_lone_tenant_gets_every_slot() -> Result<()> {
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

/// A tenant whose only job is due later does not count as active, so the system virtual time rises
/// with the active tenants.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_scheduled_for_later_does_not_hold_the_floor() -> Result<()> {
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
        system.index.renew(&shard(), LEASE, &[long.held(Duration::from_mins(1))]).await?;
    }
    let next = consumer.fetch(&shard(), 40).await?.leases;
    assert!(next.iter().all(|lease| lease.tenant == tenants[1]), "60 s are more than 40 estimates");
    // The job ran for as long as it was charged, so its end changes nothing.
    let settle = |ran| Settlement { id: long.id, token: long.token, ran: Some(ran), again: None };
    system.index.settle(&shard(), &[settle(Duration::from_mins(1))]).await?;
    let used = virtual_time(&system, tenants[0]).await?;
    assert!((used - 30_000.0).abs() < 1_000.0, "60 s over a weight of 2 are {used} ms of virtual time");
    Ok(())
}

/// Many leases are out at once, each charged too much. If the excess were refunded, the second
/// tenant would wait for that long while the first is served.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_takes_nobody_behind_who_came_meanwhile() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenants = tenants(&system, 2).await?;
    let [first, second] = tenants.as_slice() else { panic!("two tenants: {tenants:?}") };
    build_index(&system).await;
    enqueue(&system, *first, 20).await?;
    indexed(&system, 20).await;
    let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
    let ran = |lease: &Lease, ran| Settlement { id: lease.id, token: lease.token, ran: Some(ran), again: None };
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
async fn jobs_far_below_a_millisecond_share_a_turn() -> Result<()> {
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
        let settle = |lease: &Lease| Settlement { id: lease.id, token: lease.token, ran: Some(ran), again: None };
        let first = consumer.fetch(&shard(), 2).await?.leases;
        system.index.settle(&shard(), &first.iter().map(settle).collect::<Vec<_>>()).await?;
        let leases = consumer.fetch(&shard(), 40).await?.leases;
        let taken: Vec<usize> = leases.chunk_by(|one, other| one.tenant == other.tenant).map(<[_]>::len).collect();
        assert!(taken.iter().all(|jobs| turn.contains(jobs)), "{taken:?} of {ran:?} each taken in a round");
    }
    Ok(())
}
