//! Finished runs that wait to be written, in one queue per tenant.
//!
//! Invariant: the tenants with waiting outcomes share a batch evenly, in number and in bytes, so no
//! tenant's outcomes wait behind the backlog of another. Adding an outcome never blocks; instead, a
//! run of a tenant with many waiting outcomes keeps its fetch permit until its own outcome is
//! taken.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{fair_queue::FairQueue, tenancy::TenantId};
use tokio::sync::Notify;

/// Most outcomes per batch.
pub const MAX_BATCH: usize = 500;
/// Most bytes of texts and results per batch; its last outcome may exceed them.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Waiting outcomes of one tenant beyond which its runs keep their permits.
const WAITING_OF_A_TENANT: usize = 1_000;
/// Waiting outcomes of all tenants beyond which every run keeps its permit.
const WAITING: usize = 2_000;

/// Waiting outcomes of one class. `E` is the item to write, `P` the permit of its run.
pub(super) struct OutcomeQueue<E, P> {
    state: Mutex<State<E, P>>,
    /// Signals that an item waits, or that a batch is full.
    changed: Notify,
    /// Whether each tenant's batches are written one at a time.
    one_batch_a_tenant: bool,
}

struct State<E, P> {
    /// Weighted by bytes. The permit is held until the item is taken.
    waiting: FairQueue<(E, Option<P>)>,
    /// Tenants whose batch is being written, if each tenant has one batch at a time.
    under_way: HashSet<TenantId>,
}

impl<E, P> OutcomeQueue<E, P> {
    /// Items of all tenants are written together.
    pub fn shared() -> Self {
        Self::new(false)
    }

    /// Items are written per tenant, one batch of each tenant at a time.
    pub fn by_tenant() -> Self {
        Self::new(true)
    }

    fn new(one_batch_a_tenant: bool) -> Self {
        let state = State { waiting: FairQueue::default(), under_way: HashSet::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), one_batch_a_tenant }
    }

    /// Adds an item of this many bytes. If many items wait, the permit is held until the item is
    /// taken, so a tenant with many waiting items gets fewer new runs; otherwise it is dropped at
    /// once.
    pub fn push(&self, tenant: TenantId, item: E, bytes: usize, permit: Option<P>) {
        let mut state = self.lock();
        let many_wait = state.waiting.len() >= WAITING || state.waiting.len_of(tenant) >= WAITING_OF_A_TENANT;
        let (held, dropped) = if many_wait { (permit, None) } else { (None, permit) };
        state.waiting.push(tenant, bytes, (item, held));
        if state.waiting.len() == 1 || state.waiting.len().is_multiple_of(MAX_BATCH) || self.one_batch_a_tenant {
            self.changed.notify_one();
        }
        drop(state);
        drop(dropped);
    }

    /// Waits until an item may be taken, or a batch is full.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the waiting items fill a batch.
    pub fn fills_a_batch(&self) -> bool {
        self.lock().waiting.len() >= MAX_BATCH
    }

    /// Whether no items wait.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Takes the next batch, which is empty if no item may be written now. If it returns a tenant,
    /// call [`Self::written`] once the batch is written.
    pub fn take(&self) -> (Option<TenantId>, Vec<E>) {
        let State { waiting, under_way } = &mut *self.lock();
        let (tenant, batch) = if self.one_batch_a_tenant {
            waiting.take_of_one(MAX_BATCH, MAX_BATCH_BYTES, |tenant| !under_way.contains(&tenant)).unzip()
        } else {
            (None, Some(waiting.take(MAX_BATCH, MAX_BATCH_BYTES)))
        };
        under_way.extend(tenant);
        (tenant, batch.into_iter().flatten().map(|(item, _)| item).collect())
    }

    /// Marks the batch of a tenant as written, so its next batch may start.
    pub fn written(&self, tenant: TenantId) {
        self.lock().under_way.remove(&tenant);
        self.changed.notify_one();
    }

    /// A panic while the lock is held leaves consistent queues.
    fn lock(&self) -> MutexGuard<'_, State<E, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    /// Adds items whose value is the number of their tenant.
    fn push(queue: &OutcomeQueue<u128, Arc<()>>, number: u128, count: usize) {
        for _ in 0..count {
            queue.push(tenant(number), number, 0, None);
        }
    }

    #[tokio::test]
    async fn runs_of_a_tenant_with_many_waiting_outcomes_keep_their_permits() {
        let queue = OutcomeQueue::shared();
        push(&queue, 1, WAITING_OF_A_TENANT);
        let [held, other] = [1, 2].map(|number| {
            let permit = Arc::new(());
            queue.push(tenant(number), number, 0, Some(Arc::clone(&permit)));
            permit
        });
        let is_held = |permit: &Arc<()>| Arc::strong_count(permit) > 1;
        queue.take();
        assert!(is_held(&held) && !is_held(&other), "the item is not taken yet");
        while !queue.is_empty() {
            queue.take();
        }
        assert!(!is_held(&held));
    }

    #[tokio::test]
    async fn outcomes_written_by_tenant_have_one_batch_of_a_tenant_at_a_time() {
        let queue = OutcomeQueue::by_tenant();
        push(&queue, 1, 700);
        push(&queue, 2, 1);
        let (first, batch) = queue.take();
        assert_eq!((first, batch.len()), (Some(tenant(1)), MAX_BATCH));
        assert_eq!(queue.take(), (Some(tenant(2)), vec![2]));
        assert_eq!(queue.take(), (None, Vec::new()), "the rest waits for the first batch");
        queue.changed().await;
        queue.written(tenant(1));
        queue.changed().await;
        assert_eq!(queue.take().1.len(), 200);
    }
}
