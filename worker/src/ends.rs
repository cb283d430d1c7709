//! Ends of runs that wait to be written: a line for each tenant.
//!
//! Invariant: a batch is shared evenly by the tenants whose ends wait, in number and in bytes, so that no tenant's ends wait for those of
//! another. Entering waits for nobody; a run of a tenant that has many ends waiting keeps its place until its own is taken.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{fair_queue::FairQueue, tenancy::TenantId};
use tokio::sync::{Notify, oneshot};

/// The most that one batch writes.
pub const MAX_BATCH: usize = 500;
/// Texts and results of one batch, beyond its last end.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Ends of one tenant that wait without holding up its next runs.
const WAITING_OF_A_TENANT: usize = 1_000;
/// Ends of all tenants that wait so.
const WAITING: usize = 2_000;

/// Ends of one class. `E` is what is written.
pub struct Ends<E> {
    state: Mutex<State<E>>,
    /// Something waits, or a batch is full.
    changed: Notify,
    /// Whether a tenant's ends are written one batch after the other.
    one_batch_a_tenant: bool,
}

/// An end that was entered.
pub struct Entered {
    /// `None` if its tenant has few ends waiting.
    taken: Option<oneshot::Receiver<()>>,
}

struct State<E> {
    /// Weighed by their bytes.
    waiting: FairQueue<Entry<E>>,
    /// Tenants whose batch is being written, if a tenant has one at a time.
    under_way: HashSet<TenantId>,
}

struct Entry<E> {
    end: E,
    /// Dropped when the end is taken.
    _taken: Option<oneshot::Sender<()>>,
}

impl Entered {
    /// If its tenant has many ends waiting, drops `kept` only when this one is taken, so that the tenant is given less to run.
    pub fn keep(self, kept: impl Send + 'static) {
        if let Some(taken) = self.taken {
            tokio::spawn(async move {
                // The other end is dropped when the entry is taken.
                let _ = taken.await;
                drop(kept);
            });
        }
    }
}

impl<E> Ends<E> {
    /// Ends that are written together, whosever they are.
    pub fn shared() -> Self {
        Self::new(false)
    }

    /// Ends that are written tenant by tenant, one batch of each at a time.
    pub fn apart() -> Self {
        Self::new(true)
    }

    fn new(one_batch_a_tenant: bool) -> Self {
        let state = State { waiting: FairQueue::default(), under_way: HashSet::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), one_batch_a_tenant }
    }

    /// Enters an end of so many bytes.
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

    /// Waits until there may be something to take, or a full batch.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether what waits fills a batch.
    pub fn fills_a_batch(&self) -> bool {
        self.lock().waiting.len() >= MAX_BATCH
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Takes the next batch, empty if nothing may be written now. If a tenant has one batch at a time, it is to be [`Self::written`].
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

    /// The batch of a tenant is written: its next may begin.
    pub fn written(&self, tenant: TenantId) {
        self.lock().under_way.remove(&tenant);
        self.changed.notify_one();
    }

    /// A panic while the lock is held leaves lines that are still whole.
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

    /// Enters ends that are named by their tenant.
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
        assert!(is_others_freed() && !is_freed(), "it is not taken yet");
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
