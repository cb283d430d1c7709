//! A worker in simulated time.
//!
//! Invariant: no worker and no real clock take part. The tests lease and settle themselves, in
//! simulated time kept by [`Slots`], so the measurements do not depend on the machine.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{
        Lease, Settlement,
        dispatch::Consumer,
        limits::{Limiter, QueueScope, ledger::LimitRow},
    },
    tenancy::TenantId,
};
use tests::system::TestSystem;

use crate::queue::support::{LEASE, queue, shard};

/// A worker's slots in simulated time.
pub struct Slots<'a> {
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
    pub fn new(system: &'a TestSystem, size: usize) -> Self {
        let consumer = Consumer::new(system.system.clone(), system.index.clone(), LEASE);
        let (running, leases, served_ms) = (BinaryHeap::new(), Vec::new(), BTreeMap::new());
        Self { system, consumer, size, now_ms: 0, running, leases, served_ms }
    }

    /// Until `until_ms`: fills the free slots with jobs of length `length_ms`, then advances the
    /// time to the next end.
    pub async fn run(&mut self, until_ms: u64, length_ms: impl Fn(TenantId) -> u64) -> Result<()> {
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
            ended.push(Settlement { ran, again: None, ..lease.release() });
        }
        Ok(self.system.index.settle(&shard(), &ended).await?)
    }

    /// The worker time of each tenant since the last call, in ms.
    pub fn take(&mut self, tenants: &[TenantId]) -> Vec<u64> {
        let served = std::mem::take(&mut self.served_ms);
        tenants.iter().map(|tenant| served.get(tenant).copied().unwrap_or_default()).collect()
    }
}

/// Enqueues this many jobs of one kind.
pub async fn enqueue(system: &TestSystem, tenant: TenantId, jobs: usize) -> Result<()> {
    system.enqueue((0..jobs).map(|_| system.job(tenant, "noop", &json!({}))).collect()).await?;
    Ok(())
}

/// Sets a tenant's weight in the queue.
pub async fn weigh(system: &TestSystem, tenant: TenantId, weight: i32) -> Result<()> {
    let limiter = Limiter::new(system.system.clone(), system.index.clone());
    let row = LimitRow { weight: Some(weight), ..LimitRow::default() };
    Ok(limiter.limit_tenant(tenant, &QueueScope::One(queue()), &row, false, &[queue()]).await?)
}

/// This many new tenants.
pub async fn tenants(system: &TestSystem, count: usize) -> Result<Vec<TenantId>> {
    let mut tenants = Vec::new();
    for at in 0..count {
        tenants.push(system.tenant(&format!("tenant-{at}")).await?);
    }
    Ok(tenants)
}

/// Asserts that the second tenant was served this many times as long as the first, within 15 %.
pub fn assert_ratio(served: &[u64], wanted: f64) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a short simulation")]
    let ratio = served[1] as f64 / served[0] as f64;
    assert!((wanted * 0.85..wanted * 1.15).contains(&ratio), "{served:?}: {ratio}, not {wanted}");
}
