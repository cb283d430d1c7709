//! What this process holds: one entry for each leased job, from fetch until its lease is settled.
//!
//! Invariant: whatever is leased is here, so the renewer extends it; whatever is no longer here is not renewed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{
    queue::{LeaseToken, Shard, consumer::Lease},
    tenancy::TenantId,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The leases of this process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Holdings {
    entries: Arc<Mutex<HashMap<Uuid, Held>>>,
}

struct Held {
    token: LeaseToken,
    tenant: TenantId,
    shard: Shard,
    cancelled: CancellationToken,
}

impl Holdings {
    /// Enters a new lease and returns the token with which its run is cancelled. An earlier lease of the same job, which this
    /// process must have lost, is cancelled and replaced.
    pub fn enter(&self, lease: &Lease) -> CancellationToken {
        let cancelled = CancellationToken::new();
        let held =
            Held { token: lease.token, tenant: lease.tenant, shard: lease.shard.clone(), cancelled: cancelled.clone() };
        if let Some(lost) = self.lock().insert(lease.id, held) {
            lost.cancelled.cancel();
        }
        cancelled
    }

    /// Takes a lease out, unless the job is held by a later lease by now.
    pub fn leave(&self, id: Uuid, token: LeaseToken) {
        let mut entries = self.lock();
        if entries.get(&id).is_some_and(|held| held.token == token) {
            entries.remove(&id);
        }
    }

    /// Cancels the run of a job, if it is here.
    pub fn cancel(&self, id: Uuid) {
        if let Some(held) = self.lock().get(&id) {
            held.cancelled.cancel();
        }
    }

    /// Cancels the run of a job whose lease is lost, unless it is held by a later lease by now.
    pub fn cancel_if(&self, id: Uuid, token: LeaseToken) {
        if let Some(held) = self.lock().get(&id).filter(|held| held.token == token) {
            held.cancelled.cancel();
        }
    }

    /// Cancels all runs: the process has no time left.
    pub fn cancel_all(&self) {
        for held in self.lock().values() {
            held.cancelled.cancel();
        }
    }

    /// What is to be renewed, by shard.
    pub fn by_shard(&self) -> HashMap<Shard, Vec<(Uuid, LeaseToken, TenantId)>> {
        let mut shards: HashMap<_, Vec<_>> = HashMap::new();
        for (id, held) in self.lock().iter() {
            shards.entry(held.shard.clone()).or_default().push((*id, held.token, held.tenant));
        }
        shards
    }

    /// How many jobs are held.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic while the lock is held leaves a map that is still whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
