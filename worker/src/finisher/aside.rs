//! Ends of tenants whose rows are locked: written apart from those of others, a task for each such tenant.
//!
//! Invariant: an end that is set aside keeps its lease, which is renewed, until it is written. A tenant is set aside until its ends have
//! met no lock for [`PERIOD`]; so a lock that lasts holds up a shared batch once. A worker that stops does not wait for these ends: their
//! leases run out, and the jobs are rescued.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::tenancy::TenantId;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{WithHooks, Writing, write};
use crate::ends::MAX_BATCH;

/// How long a tenant stays set aside after its last lock.
const PERIOD: Duration = Duration::from_secs(5);
/// Before ends that met a lock are tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Ends of one tenant that are kept here. The lease of one more is given up.
const MAX_WAITING: usize = 10_000;
/// Tenants whose ends are written at the same time, each on a connection of its own.
const TURNS: usize = 2;

/// The tenants that are set aside.
pub(super) struct Aside {
    tenants: Mutex<HashMap<TenantId, Queue>>,
    turns: Semaphore,
}

/// The ends of one tenant.
struct Queue {
    ends: VecDeque<WithHooks>,
    until: Instant,
    /// Whether a task writes them.
    is_served: bool,
}

/// Nobody is set aside yet.
impl Default for Aside {
    fn default() -> Self {
        Self { tenants: Mutex::default(), turns: Semaphore::new(TURNS) }
    }
}

impl Aside {
    /// Takes the ends of tenants that are set aside out of a batch.
    pub(super) fn divert(writing: &Arc<Writing>, mut batch: Vec<WithHooks>) -> Vec<WithHooks> {
        let aside = writing.aside.now();
        if aside.is_empty() {
            return batch;
        }
        for end in batch.extract_if(.., |(ended, _)| aside.contains(&ended.lease.tenant)) {
            Self::push(writing, end, None);
        }
        batch
    }

    /// Sets aside an end that met a lock, and with it its tenant.
    pub(super) fn put(writing: &Arc<Writing>, end: WithHooks) {
        Self::push(writing, end, Some(Instant::now() + PERIOD));
    }

    fn push(writing: &Arc<Writing>, end: WithHooks, until: Option<Instant>) {
        let lease = Arc::clone(&end.0.lease);
        let mut tenants = writing.aside.tenants();
        let queue = tenants.entry(lease.tenant).or_insert_with(|| Queue {
            ends: VecDeque::new(),
            until: Instant::now(),
            is_served: false,
        });
        queue.until = until.unwrap_or(queue.until);
        if queue.ends.len() >= MAX_WAITING {
            tracing::error!(job_id = %lease.id, tenant = %lease.tenant, "the end of a job is given up: too many others meet a lock");
            writing.holdings.leave([(lease.id, lease.token)]);
            return;
        }
        queue.ends.push_back(end);
        if !std::mem::replace(&mut queue.is_served, true) {
            tokio::spawn(Self::serve(Arc::clone(writing), lease.tenant));
        }
    }

    async fn serve(writing: Arc<Writing>, tenant: TenantId) {
        let mut most = MAX_BATCH;
        loop {
            let batch = writing.aside.take(tenant, most);
            if batch.is_empty() {
                return;
            }
            let size = batch.len();
            let turn = writing.aside.turns.acquire().await;
            let locked = write(&writing, batch, None).await;
            drop(turn);
            // One end that is blocked can spoil a batch; alone, it spoils nothing.
            most = if locked == size { (size / 4).max(1) } else { MAX_BATCH };
            if locked > 0 {
                sleep(PAUSE).await;
            }
        }
    }

    /// What is written next; nothing, and the task is over, if nothing waits.
    fn take(&self, tenant: TenantId, most: usize) -> Vec<WithHooks> {
        let mut tenants = self.tenants();
        let Some(queue) = tenants.get_mut(&tenant) else { return Vec::new() };
        let count = queue.ends.len().min(most);
        let batch: Vec<WithHooks> = queue.ends.drain(..count).collect();
        queue.is_served = !batch.is_empty();
        tenants.retain(|_, queue| queue.is_served || Instant::now() < queue.until);
        batch
    }

    /// The tenants that are set aside at this moment.
    fn now(&self) -> HashSet<TenantId> {
        let (tenants, now) = (self.tenants(), Instant::now());
        tenants.iter().filter(|(_, queue)| now < queue.until).map(|(tenant, _)| *tenant).collect()
    }

    /// A panic while the lock is held leaves a table that is still whole.
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Queue>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
