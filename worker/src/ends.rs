//! Ends of runs that wait to be written: a line for each tenant.
//!
//! Invariant: a batch is shared evenly by the tenants whose ends wait, in number and in bytes, so that no tenant's ends wait for those of
//! another. Entering waits for nobody; a run of a tenant that has many ends waiting keeps its place until its own is taken.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::tenancy::TenantId;
use tokio::sync::{Notify, oneshot};

/// The most that one batch writes.
pub const MAX_BATCH: usize = 500;
/// Texts and results of one batch, beyond the first end of each tenant.
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
    lines: HashMap<TenantId, VecDeque<Entry<E>>>,
    /// The tenants in `lines`, in the order of their turns.
    turns: VecDeque<TenantId>,
    waiting: usize,
    /// Tenants whose batch is being written, if a tenant has one at a time.
    under_way: HashSet<TenantId>,
}

struct Entry<E> {
    end: E,
    bytes: usize,
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
        let state = State { lines: HashMap::new(), turns: VecDeque::new(), waiting: 0, under_way: HashSet::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), one_batch_a_tenant }
    }

    /// Enters an end of so many bytes.
    pub fn enter(&self, tenant: TenantId, end: E, bytes: usize) -> Entered {
        let mut state = self.lock();
        let waits =
            state.waiting >= WAITING || state.lines.get(&tenant).is_some_and(|line| line.len() >= WAITING_OF_A_TENANT);
        let (sender, receiver) = if waits { Some(oneshot::channel()).unzip() } else { (None, None) };
        state.enter(tenant, Entry { end, bytes, _taken: sender });
        if state.waiting == 1 || state.waiting.is_multiple_of(MAX_BATCH) || self.one_batch_a_tenant {
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
        self.lock().waiting >= MAX_BATCH
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting == 0
    }

    /// Takes the next batch, empty if nothing may be written now. If a tenant has one batch at a time, it is to be [`Self::written`].
    pub fn take(&self) -> (Option<TenantId>, Vec<E>) {
        let mut state = self.lock();
        if self.one_batch_a_tenant { state.take_of_one() } else { (None, state.take_of_all()) }
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

impl<E> State<E> {
    fn enter(&mut self, tenant: TenantId, entry: Entry<E>) {
        let turns = &mut self.turns;
        let line = self.lines.entry(tenant).or_insert_with(|| {
            turns.push_back(tenant);
            VecDeque::new()
        });
        line.push_back(entry);
        self.waiting += 1;
    }

    /// Even parts of all tenants; what some do not use goes round again.
    fn take_of_all(&mut self) -> Vec<E> {
        let (mut batch, mut bytes) = (Vec::with_capacity(MAX_BATCH.min(self.waiting)), 0);
        while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES && !self.turns.is_empty() {
            let tenants = self.turns.len();
            let part = ((MAX_BATCH - batch.len()) / tenants).max(1);
            let part_bytes = (MAX_BATCH_BYTES - bytes) / tenants;
            for _ in 0..tenants.min(MAX_BATCH - batch.len()) {
                let Some(tenant) = self.turns.pop_front() else { break };
                bytes += self.take_from(tenant, part, part_bytes, &mut batch);
            }
        }
        batch
    }

    /// All of one tenant, the next whose batch is not being written.
    fn take_of_one(&mut self) -> (Option<TenantId>, Vec<E>) {
        let mut batch = Vec::new();
        let Some(at) = self.turns.iter().position(|tenant| !self.under_way.contains(tenant)) else {
            return (None, batch);
        };
        let tenant = self.turns.remove(at);
        if let Some(tenant) = tenant {
            self.take_from(tenant, MAX_BATCH, MAX_BATCH_BYTES, &mut batch);
            self.under_way.insert(tenant);
        }
        (tenant, batch)
    }

    /// Takes one end of a tenant at least; the tenant's next turn comes after those of the others.
    fn take_from(&mut self, tenant: TenantId, most: usize, most_bytes: usize, batch: &mut Vec<E>) -> usize {
        let Some(line) = self.lines.get_mut(&tenant) else { return 0 };
        let (mut taken, mut bytes) = (0, 0);
        while taken < most
            && (taken == 0 || bytes < most_bytes)
            && let Some(entry) = line.pop_front()
        {
            (taken, bytes) = (taken + 1, bytes + entry.bytes);
            batch.push(entry.end);
        }
        self.waiting -= taken;
        if line.is_empty() {
            self.lines.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        bytes
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

    fn of(batch: &[u128], number: u128) -> usize {
        batch.iter().filter(|&&other| other == number).count()
    }

    #[test]
    fn a_tenant_alone_fills_batches() {
        let ends = Ends::shared();
        enter(&ends, 1, 1_200, 0);
        let sizes: Vec<usize> = (0..4).map(|_| ends.take().1.len()).collect();
        assert_eq!(sizes, [500, 500, 200, 0]);
    }

    #[test]
    fn the_end_of_a_quiet_tenant_is_in_the_next_batch() {
        let ends = Ends::shared();
        enter(&ends, 1, 5_000, 0);
        enter(&ends, 2, 3, 0);
        enter(&ends, 3, 1_000, 0);
        let (_, batch) = ends.take();
        assert_eq!((of(&batch, 2), batch.len()), (3, MAX_BATCH));
        assert!(of(&batch, 1).abs_diff(of(&batch, 3)) <= 3, "{} and {}", of(&batch, 1), of(&batch, 3));
    }

    /// One with long error texts has fewer ends in a batch, not longer batches.
    #[test]
    fn bytes_are_shared_as_well() {
        let ends = Ends::shared();
        enter(&ends, 1, 100, 64 * 1024);
        enter(&ends, 2, 100, 10);
        let (_, batch) = ends.take();
        assert_eq!(of(&batch, 2), 100);
        assert!((4..=9).contains(&of(&batch, 1)), "{}", of(&batch, 1));
        // An end that is larger than a batch is written all the same.
        enter(&ends, 3, 1, 10 * MAX_BATCH_BYTES);
        assert!(std::iter::from_fn(|| Some(ends.take().1)).take(20).any(|batch| of(&batch, 3) == 1));
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
