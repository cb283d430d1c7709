//! How many dependencies (`after`) a request may have, and a tenant's waiting jobs together.
//!
//! Invariant: what a request adds is judged before it comes to the group commit that all tenants share. The number of a tenant's open
//! dependencies is counted in the ledger only when the last count, with what was added since, is old or leaves no room, and by one request
//! of a tenant at a time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    config::DependencyConfig,
    db::TenantDb,
    patience,
    queue::{NewJob, ties},
    tenancy::TenantId,
};

use crate::{
    problem::{Problem, ProblemCode},
    turns::Turns,
};

/// A count is relied on for this long, as long as it leaves room.
const FRESH: Duration = Duration::from_secs(10);
const KEPT: usize = 10_000;

/// Counts the dependencies of tenants. One for the process.
pub struct DependencyQuota {
    limits: DependencyConfig,
    counts: Mutex<HashMap<TenantId, Count>>,
    counting: Turns<TenantId>,
}

#[derive(Clone, Copy)]
struct Count {
    at: Instant,
    open: usize,
}

impl DependencyQuota {
    /// Nobody is counted yet.
    pub fn new(limits: DependencyConfig) -> Self {
        Self { limits, counts: Mutex::default(), counting: Turns::default() }
    }

    /// Refuses jobs that would wait for more than they may.
    pub async fn admit(&self, tenants: &TenantDb, tenant: TenantId, jobs: &[NewJob]) -> Result<(), Problem> {
        let added: usize = jobs.iter().map(dependencies).sum();
        if added == 0 {
            return Ok(());
        }
        if added > self.limits.per_request {
            return Err(too_many(added, self.limits.per_request));
        }
        if self.add_to_known(tenant, added) {
            return Ok(());
        }
        let counted = self.counting.run(&tenant, self.count(tenants, tenant, added));
        patience::within(Box::pin(counted)).await.unwrap_or_else(|| Err(ProblemCode::Unavailable.into()))
    }

    async fn count(&self, tenants: &TenantDb, tenant: TenantId, added: usize) -> Result<(), Problem> {
        if self.add_to_known(tenant, added) {
            return Ok(());
        }
        let mut transaction = tenants.begin(tenant).await?;
        let open = ties::count_open_dependencies(&mut transaction, self.limits.open).await?;
        if self.add(tenant, open, added) {
            return Ok(());
        }
        Err(no_room(open, added, self.limits.open))
    }

    /// Whether the last count leaves room.
    fn add_to_known(&self, tenant: TenantId, added: usize) -> bool {
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(&tenant).filter(|count| count.at.elapsed() < FRESH) else { return false };
        let fits = count.open + added <= self.limits.open;
        if fits {
            count.open += added;
        }
        fits
    }

    /// Whether a new count leaves room.
    fn add(&self, tenant: TenantId, open: usize, added: usize) -> bool {
        let mut counts = self.counts();
        if counts.len() >= KEPT {
            counts.retain(|_, count| count.at.elapsed() < FRESH);
        }
        let fits = open + added <= self.limits.open;
        counts.insert(tenant, Count { at: Instant::now(), open: if fits { open + added } else { open } });
        fits
    }

    /// A panic while the lock is held leaves a table that is still whole.
    fn counts(&self) -> MutexGuard<'_, HashMap<TenantId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Jobs that are named twice count once.
fn dependencies(job: &NewJob) -> usize {
    job.ties.as_deref().map_or(0, |ties| ties.after.iter().collect::<HashSet<_>>().len())
}

fn too_many(added: usize, limit: usize) -> Problem {
    Problem::new(ProblemCode::TooManyDependencies)
        .detail(format!("the jobs of this request name {added} jobs in after, and {limit} are permitted"))
        .member("dependencies", added)
        .member("limit", limit)
}

fn no_room(open: usize, added: usize, limit: usize) -> Problem {
    Problem::new(ProblemCode::TooManyOpenDependencies)
        .detail(format!(
            "your waiting jobs name {open} jobs in after, this request {added} more, and {limit} are permitted"
        ))
        .member("open_dependencies", open)
        .member("dependencies", added)
        .member("limit", limit)
        .retry_after(1)
}
