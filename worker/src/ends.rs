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
use tokio::sync::{Notify, oneshot};

/// Most outcomes per batch.
pub const MAX_BATCH: usize = 500;
/// Most bytes of texts and results per batch; its last outcome may exceed them.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Waiting outcomes of one tenant beyond which its runs keep their permits.
const WAITING_OF_A_TENANT: usize = 1_000;
/// Waiting outcomes of all tenants beyond which every run keeps its permit.
const WAITING: usize = 2_000;

/// Waiting outcomes of one class. `E` is the item to write.
pub struct Ends<E> {
    state: Mutex<State<E>>,
    /// Signals that an item waits, or that a batch is full.
    changed: Notify,
    /// Whether each tenant's batches are written one at a time.
    one_batch_a_tenant: bool,
}

/// A receipt for an item that was added.
pub struct Entered {
    /// `None` if few items wait.
    taken: Option<oneshot::Receiver<()>>,
}

struct State<E> {
    /// Weighted by bytes.
    waiting: FairQueue<Entry<E>>,
    /// Tenants whose batch is being written, if each tenant has one batch at a time.
    under_way: HashSet<TenantId>,
}

struct Entry<E> {
    end: E,
    /// Dropped when the item is taken.
    _taken: Option<oneshot::Sender<()>>,
}

impl Entered {
    /// Drops `kept` once the item is taken, if many items wait; otherwise at once. So a tenant with
    /// many waiting items gets fewer new runs.
    pub fn keep(self, kept: impl Send + 'static) {
        if let Some(taken) = self.taken {
            tokio::spawn(async move {
                // The sender is dropped when the entry is taken.
                let _ = taken.await;
                drop(kept);
            });
        }
    }
}

impl<E> Ends<E> {
    /// Items of all tenants are written together.
    pub fn shared() -> Self {
        Self::new(false)
    }

    /// Items are written per tenant, one batch of each tenant at a time.
    pub fn apart() -> Self {
        Self::new(true)
    }

    fn new(one_batch_a_tenant: bool) -> Self {
        let state = State { waiting: FairQueue::default(), under_way: HashSet::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), one_batch_a_tenant }
    }

    /// Adds an item of this many bytes.
    pub fn enter(&self, tenant: TenantId, end: E, bytes: usize) -> Entered {
        let mut state = self.lock();
        let waits = state.waiting.len() >= WAITING || state.waiting.len_of(tenant) >= WAITING_OF_A_TENANT;
        let (sender, receiver) = if waits { Some(oneshot::channel()).unzip() } else { (None, None) };
        state.waiting.push(tenant, bytes, Entry { end, _taken: sender });
        if state.waiting.len() == 1 || state.waiting.len().is_multiple_of(MAX_BATCH) || self.one_batch_a_tenant {
            self.changed.notify_one();
        }
        Entered { taken: receiver }
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
        (tenant, batch.into_iter().flatten().map(|entry| entry.end).collect())
    }

    /// Marks the batch of a tenant as written, so its next batch may start.
    pub fn written(&self, tenant: TenantId) {
        self.lock().under_way.remove(&tenant);
        self.changed.notify_one();
    }

    /// A panic while the lock is held leaves consistent queues.
    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    /// Adds items whose value is the number of their tenant.
    fn enter(ends: &Ends<u128>, number: u128, count: usize, bytes: usize) {
        for _ in 0..count {
            ends.enter(tenant(number), number, bytes);
        }
    }

    #[tokio::test]
    async fn who_has_many_ends_waiting_keeps_its_places_and_the_others_do_not() {
        let ends = Ends::shared();
        enter(&ends, 1, WAITING_OF_A_TENANT, 0);
        let keep = |number| {
            let (place, mut freed) = oneshot::channel::<()>();
            ends.enter(tenant(number), number, 0).keep(place);
            move || freed.try_recv() != Err(TryRecvError::Empty)
        };
        let (mut is_freed, mut is_others_freed) = (keep(1), keep(2));
        ends.take();
        tokio::task::yield_now().await;
        assert!(is_others_freed() && !is_freed(), "the item is not taken yet");
        while !ends.is_empty() {
            ends.take();
        }
        tokio::task::yield_now().await;
        assert!(is_freed());
    }

    #[tokio::test]
    async fn ends_that_are_written_apart_have_one_batch_of_a_tenant_at_a_time() {
        let ends = Ends::apart();
        enter(&ends, 1, 700, 0);
        enter(&ends, 2, 1, 0);
        let (first, batch) = ends.take();
        assert_eq!((first, batch.len()), (Some(tenant(1)), MAX_BATCH));
        assert_eq!(ends.take(), (Some(tenant(2)), vec![2]));
        assert_eq!(ends.take(), (None, Vec::new()), "the rest waits for the first batch");
        ends.changed().await;
        ends.written(tenant(1));
        ends.changed().await;
        assert_eq!(ends.take().1.len(), 200);
    }
}
