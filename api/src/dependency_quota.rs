//! Limits on dependencies (`after`): of one request, and of a tenant's waiting jobs together.
//!
//! Invariant: a request is checked before it reaches the group commit, which all tenants share. A
//! tenant's open dependencies are counted in the ledger only when the last count, plus what was
//! added since, is older than [`FRESH`] or leaves no room, and by one request of a tenant at a
//! time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use shared::{
    config::DependencyConfig,
    db::TenantDb,
    patience,
    queue::{NewJob, ledger::relations},
    tenancy::TenantId,
};

use crate::{
    problem::{Problem, ProblemCode},
    turns::Turns,
};

/// How long a count is used while it leaves room.
const FRESH: Duration = Duration::from_secs(10);
const KEPT: usize = 10_000;

/// Checks the limits with cached counts per tenant. One per process.
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
    /// Creates a quota without any counts.
    pub fn new(limits: DependencyConfig) -> Self {
        Self { limits, counts: Mutex::default(), counting: Turns::default() }
    }

    /// Rejects jobs whose dependencies exceed a limit.
    pub async fn admit(&self, tenants: &TenantDb, tenant: TenantId, jobs: &[NewJob]) -> Result<(), Problem> {
        let added: usize = jobs.iter().map(dependencies).sum();
        if added == 0 {
            return Ok(());
        }
        if added > self.limits.per_request {
            return Err(too_many(added, self.limits.per_request));
        }
        if self.add_to_recent(tenant, added) {
            return Ok(());
        }
        let counted = self.counting.run(&tenant, self.count(tenants, tenant, added));
        patience::within(Box::pin(counted)).await.unwrap_or_else(|| Err(ProblemCode::Unavailable.into()))
    }

    async fn count(&self, tenants: &TenantDb, tenant: TenantId, added: usize) -> Result<(), Problem> {
        if self.add_to_recent(tenant, added) {
            return Ok(());
        }
        let mut transaction = tenants.begin(tenant).await?;
        let open = relations::count_open_dependencies(&mut transaction, self.limits.open).await?;
        if self.add(tenant, open, added) {
            return Ok(());
        }
        Err(no_room(open, added, self.limits.open))
    }

    /// Adds to the last count; returns whether it is recent and leaves room.
    fn add_to_recent(&self, tenant: TenantId, added: usize) -> bool {
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(&tenant).filter(|count| count.at.elapsed() < FRESH) else { return false };
        let fits = count.open + added <= self.limits.open;
        if fits {
            count.open += added;
        }
        fits
    }

    /// Records a new count; returns whether it leaves room.
    fn add(&self, tenant: TenantId, open: usize, added: usize) -> bool {
        let mut counts = self.counts();
        if counts.len() >= KEPT {
            counts.retain(|_, count| count.at.elapsed() < FRESH);
        }
        let fits = open + added <= self.limits.open;
        counts.insert(tenant, Count { at: Instant::now(), open: if fits { open + added } else { open } });
        fits
    }

    /// A panic while the lock is held leaves the table consistent.
    fn counts(&self) -> MutexGuard<'_, HashMap<TenantId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Duplicate ids count once.
fn dependencies(job: &NewJob) -> usize {
    job.relations.as_deref().map_or(0, |relations| relations.after.iter().collect::<HashSet<_>>().len())
}

fn too_many(added: usize, limit: usize) -> Problem {
    Problem::new(ProblemCode::TooManyDependencies)
        .detail(format!("the jobs of this request have {added} dependencies in `after`; the limit is {limit}"))
        .member("dependencies", added)
        .member("limit", limit)
}

fn no_room(open: usize, added: usize, limit: usize) -> Problem {
    Problem::new(ProblemCode::TooManyOpenDependencies)
        .detail(format!(
            "the tenant's waiting jobs have {open} dependencies and this request adds {added}; the limit is {limit}"
        ))
        .member("open_dependencies", open)
        .member("dependencies", added)
        .member("limit", limit)
        .retry_after(1)
}
