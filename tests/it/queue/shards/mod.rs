//! Queues split over shards: guarantees of a queue hold for its shards together, and exactly for
//! each tenant.

mod changing;
mod control;
mod disagreement;
mod fairness;
mod running;

use anyhow::Result;
use serde_json::json;
use shared::{
    queue::{Lease, Shard, dispatch::Consumer, limits::Limiter},
    tenancy::TenantId,
};
use tests::system::TestSystem;
use uuid::Uuid;

use super::support::{LEASE, build_index, indexed, queue};

const SPLIT: &str = "default:4";

/// A queue of four shards without a scheduler that would correct its index, and tenants of each
/// shard.
struct Scene {
    system: TestSystem,
    limiter: Limiter,
    consumer: Consumer,
    shards: Vec<Shard>,
    tenants: Vec<Vec<TenantId>>,
}

impl Scene {
    async fn new(tenants_each: usize) -> Result<Self> {
        let system = TestSystem::start().await?.split(SPLIT)?;
        build_index(&system).await;
        Ok(Self {
            limiter: Limiter::new(system.system.clone(), system.index.clone()),
            consumer: Consumer::new(system.system.clone(), system.index.clone(), LEASE),
            shards: system.index.shards(&queue()).collect(),
            tenants: tenants_of_each(&system, tenants_each).await?,
            system,
        })
    }

    /// Commits this many jobs of each tenant of each shard, waits until the index contains them,
    /// and returns them by shard.
    async fn backlog(&self, jobs: usize) -> Result<Vec<Vec<Uuid>>> {
        let (mut ids, mut total) = (Vec::new(), 0);
        for tenants in &self.tenants {
            let of = |tenant| (0..jobs).map(move |_| self.system.job(tenant, "noop", &json!({})));
            let here = self.system.enqueue(tenants.iter().copied().flat_map(of).collect()).await?;
            total += here.len() as u64;
            ids.push(here);
        }
        indexed(&self.system, total).await;
        Ok(ids)
    }

    async fn fetch(&self, shard: usize, wanted: usize) -> Result<Vec<Lease>> {
        Ok(self.consumer.fetch(&self.shards[shard], wanted).await?.leases)
    }

    /// Fetches this many jobs of each shard.
    async fn fetch_of_each(&self, wanted: usize) -> Result<Vec<Vec<Lease>>> {
        let mut leases = Vec::new();
        for shard in 0..self.shards.len() {
            leases.push(self.fetch(shard, wanted).await?);
        }
        Ok(leases)
    }
}

/// Adds tenants until each shard has this many; surplus tenants stay without work.
async fn tenants_of_each(system: &TestSystem, each: usize) -> Result<Vec<Vec<TenantId>>> {
    let shards: Vec<Shard> = system.index.shards(&queue()).collect();
    let (mut tenants, mut made) = (vec![Vec::new(); shards.len()], 0);
    while tenants.iter().any(|here| here.len() < each) {
        let tenant = system.tenant(&format!("tenant-{made}")).await?;
        made += 1;
        for (shard, here) in shards.iter().zip(&mut tenants) {
            if shard.holds(tenant) && here.len() < each {
                here.push(tenant);
            }
        }
    }
    Ok(tenants)
}

/// A key of one shard, as an operator would type it.
fn key(system: &TestSystem, shard: &Shard, name: &str) -> String {
    format!("{}:{{{shard}}}:{name}", system.prefix)
}
