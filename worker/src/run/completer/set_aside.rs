//! Outcomes of tenants whose rows are locked: one task per such tenant writes them, apart from the
//! shared batches.
//!
//! Invariant: an outcome that is set aside keeps its lease, which is renewed, until it is written.
//! A tenant stays set aside until its outcomes have met no lock for [`PERIOD`], so a long-held lock
//! delays a shared batch only once. A stopping worker does not wait for these outcomes: their
//! leases expire, and the jobs are rescued.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{queue::complete::Finish, tenancy::TenantId};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Completer, outcome_queue::MAX_BATCH, write};

/// How long a tenant stays set aside after its last lock.
const PERIOD: Duration = Duration::from_secs(5);
/// Pause before outcomes that met a lock are retried.
const PAUSE: Duration = Duration::from_millis(100);
/// Outcomes kept per tenant. Beyond this, an outcome is dropped and its lease is no longer renewed.
const MAX_WAITING: usize = 10_000;
/// Tenants whose outcomes are written at the same time, each on its own connection.
const TURNS: usize = 2;

/// The tenants that are set aside.
pub(super) struct SetAside {
    tenants: Mutex<HashMap<TenantId, Queue>>,
    turns: Semaphore,
}

/// The outcomes of one tenant.
struct Queue {
    finishes: VecDeque<Finish>,
    until: Instant,
    /// Whether a task is writing them.
    is_served: bool,
}

/// No tenant is set aside.
impl Default for SetAside {
    fn default() -> Self {
        Self { tenants: Mutex::default(), turns: Semaphore::new(TURNS) }
    }
}

impl SetAside {
    /// Removes the outcomes of tenants that are set aside from a batch.
    pub(super) fn divert(completer: &Arc<Completer>, mut batch: Vec<Finish>) -> Vec<Finish> {
        let tenants = completer.set_aside.now();
        if tenants.is_empty() {
            return batch;
        }
        for finish in batch.extract_if(.., |finish| tenants.contains(&finish.lease.tenant)) {
            Self::push(completer, finish, None);
        }
        batch
    }

    /// Sets aside an outcome that met a lock, together with its tenant.
    pub(super) fn put(completer: &Arc<Completer>, finish: Finish) {
        Self::push(completer, finish, Some(Instant::now() + PERIOD));
    }

    fn push(completer: &Arc<Completer>, finish: Finish, until: Option<Instant>) {
        let lease = Arc::clone(&finish.lease);
        let mut tenants = completer.set_aside.tenants();
        let queue = tenants.entry(lease.tenant).or_insert_with(|| Queue {
            finishes: VecDeque::new(),
            until: Instant::now(),
            is_served: false,
        });
        queue.until = until.unwrap_or(queue.until);
        if queue.finishes.len() >= MAX_WAITING {
            tracing::error!(job_id = %lease.id, tenant = %lease.tenant, "dropping the outcome of a job: too many outcomes of its tenant meet a lock");
            completer.held_leases.remove([(lease.id, lease.token)]);
            return;
        }
        queue.finishes.push_back(finish);
        if !std::mem::replace(&mut queue.is_served, true) {
            tokio::spawn(Self::serve(Arc::clone(completer), lease.tenant));
        }
    }

    async fn serve(completer: Arc<Completer>, tenant: TenantId) {
        let mut most = MAX_BATCH;
        loop {
            let batch = completer.set_aside.take(tenant, most);
            if batch.is_empty() {
                return;
            }
            let size = batch.len();
            let turn = completer.set_aside.turns.acquire().await;
            let locked = write(&completer, batch, None).await;
            drop(turn);
            // One locked outcome can fail a whole batch, so the next batch is smaller; a batch of
            // one affects no other outcome.
            most = if locked == size { (size / 4).max(1) } else { MAX_BATCH };
            if locked > 0 {
                sleep(PAUSE).await;
            }
        }
    }

    /// Returns the next batch. An empty batch ends the task.
    fn take(&self, tenant: TenantId, most: usize) -> Vec<Finish> {
        let mut tenants = self.tenants();
        let Some(queue) = tenants.get_mut(&tenant) else { return Vec::new() };
        let count = queue.finishes.len().min(most);
        let batch: Vec<Finish> = queue.finishes.drain(..count).collect();
        queue.is_served = !batch.is_empty();
        tenants.retain(|_, queue| queue.is_served || Instant::now() < queue.until);
        batch
    }

    /// The tenants that are set aside at this moment.
    fn now(&self) -> HashSet<TenantId> {
        let (tenants, now) = (self.tenants(), Instant::now());
        tenants.iter().filter(|(_, queue)| now < queue.until).map(|(tenant, _)| *tenant).collect()
    }

    /// A panic while the lock is held leaves a consistent table.
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Queue>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
