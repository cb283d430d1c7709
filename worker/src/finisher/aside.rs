//! Ends of tenants whose rows are locked: written apart from those of others, a task for each such tenant.
//!
//! Invariant: an end that is set aside keeps its lease, which is renewed, until it is written. A tenant is set aside until its ends have
//! met no lock for [`PERIOD`]; so a lock that lasts holds up a shared batch once. A worker that stops does not wait for these ends: their
//! leases run out, and the jobs are rescued.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    db::Kept,
    queue::{Index, webhooks::Watchers},
    tenancy::TenantId,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Ended, MAX_BATCH, write};
use crate::holdings::Holdings;

/// How long a tenant stays set aside after its last lock.
const PERIOD: Duration = Duration::from_secs(5);
/// Before ends that met a lock are tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Ends of one tenant that are kept here. The lease of one more is given up.
const MAX_WAITING: usize = 10_000;
/// Tenants whose ends are written at the same time, each on a connection of its own.
const TURNS: usize = 2;

/// The tenants that are set aside. Cheap to clone.
#[derive(Clone)]
pub(super) struct Aside {
    ledger: Kept,
    index: Index,
    watchers: Watchers,
    holdings: Holdings,
    tenants: Arc<Mutex<HashMap<TenantId, Queue>>>,
    turns: Arc<Semaphore>,
}

/// The ends of one tenant.
struct Queue {
    ends: VecDeque<Ended>,
    until: Instant,
    /// Whether a task writes them.
    is_served: bool,
}

impl Aside {
    /// Nobody is set aside yet.
    pub(super) fn new(ledger: Kept, index: Index, watchers: Watchers, holdings: Holdings) -> Self {
        let turns = Arc::new(Semaphore::new(TURNS));
        Self { ledger, index, watchers, holdings, tenants: Arc::default(), turns }
    }

    /// Takes the ends of tenants that are set aside out of a batch.
    pub(super) fn divert(&self, mut batch: Vec<Ended>) -> Vec<Ended> {
        let now = Instant::now();
        let is_aside = |tenant: &TenantId| self.tenants().get(tenant).is_some_and(|queue| now < queue.until);
        if self.tenants().is_empty() {
            return batch;
        }
        for ended in batch.extract_if(.., |ended| is_aside(&ended.lease.tenant)) {
            self.push(ended, None);
        }
        batch
    }

    /// Sets aside an end that met a lock, and with it its tenant.
    pub(super) fn put(&self, ended: Ended) {
        self.push(ended, Some(Instant::now() + PERIOD));
    }

    fn push(&self, ended: Ended, until: Option<Instant>) {
        let tenant = ended.lease.tenant;
        let mut tenants = self.tenants();
        let queue = tenants.entry(tenant).or_insert_with(|| Queue {
            ends: VecDeque::new(),
            until: Instant::now(),
            is_served: false,
        });
        queue.until = until.unwrap_or(queue.until);
        if queue.ends.len() >= MAX_WAITING {
            tracing::error!(job_id = %ended.lease.id, %tenant, "the end of a job is given up: too many others meet a lock");
            self.holdings.leave(ended.lease.id, ended.lease.token);
            return;
        }
        queue.ends.push_back(ended);
        if !std::mem::replace(&mut queue.is_served, true) {
            tokio::spawn(self.clone().serve(tenant));
        }
    }

    async fn serve(self, tenant: TenantId) {
        let mut most = MAX_BATCH;
        loop {
            let batch = self.take(tenant, most);
            if batch.is_empty() {
                return;
            }
            let size = batch.len();
            let turn = self.turns.acquire().await;
            let locked = write(&self.ledger, &self.index, &self.watchers, &self.holdings, &self, batch).await;
            drop(turn);
            // One end that is blocked can spoil a batch; alone, it spoils nothing.
            most = if locked == size { (size / 4).max(1) } else { MAX_BATCH };
            if locked > 0 {
                sleep(PAUSE).await;
            }
        }
    }

    /// What is written next; nothing, and the task is over, if nothing waits.
    fn take(&self, tenant: TenantId, most: usize) -> Vec<Ended> {
        let mut tenants = self.tenants();
        let Some(queue) = tenants.get_mut(&tenant) else { return Vec::new() };
        let count = queue.ends.len().min(most);
        let batch: Vec<Ended> = queue.ends.drain(..count).collect();
        queue.is_served = !batch.is_empty();
        tenants.retain(|_, queue| queue.is_served || Instant::now() < queue.until);
        batch
    }

    /// A panic while the lock is held leaves a table that is still whole.
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Queue>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
