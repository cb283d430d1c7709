//! The requests of isolated tenants, queued by tenant.
//!
//! Invariant: one task at a time writes a tenant's requests; it ends when none is left.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::super::{
    EnqueueError, Waiting,
    intake::{MAX_REQUESTS, MAX_WEIGHT},
};
use crate::{db, patience, tenancy::TenantId};

/// How long a tenant stays isolated after its last lock conflict.
const PERIOD: Duration = Duration::from_secs(5);
/// A request that hit a lock while written alone is refused this long after its arrival.
const BLOCKED: Duration = Duration::from_millis(1_500);
/// Requests of one tenant that may wait here; a further one is refused as overloaded.
const MAX_WAITING: usize = 1_000;
/// Isolated tenants written at the same time, each on its own connection.
const TURNS: usize = 3;

/// The tenants whose requests are written separately. Cheap to clone.
#[derive(Clone)]
pub(in crate::queue::enqueue) struct IsolatedTenants {
    queues: Arc<Mutex<HashMap<TenantId, Queue>>>,
    pub(super) turns: Arc<Semaphore>,
}

impl Default for IsolatedTenants {
    fn default() -> Self {
        Self { queues: Arc::default(), turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Isolated>,
    /// All requests of the tenant are queued here until then.
    until: Option<Instant>,
    /// Whether a task is writing them.
    is_served: bool,
    /// Idempotency keys whose row was locked at the last try.
    keys_in_flight: HashSet<String>,
}

/// A request with the state left by earlier tries.
pub(super) struct Isolated {
    pub(super) waiting: Waiting,
    pub(super) known: Known,
}

/// What earlier tries to write a request showed.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Whether an earlier try may have been committed.
    pub(super) in_doubt: bool,
    /// The lock that it hit when it was last written alone.
    held: Option<Held>,
    deadline: Instant,
}

/// A lock of another transaction of the same tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// On the row of the request's idempotency key.
    Key,
    /// On another row: of a dependency, of a unique key.
    Row,
}

impl Held {
    /// `None` for a lock on a table, which no tenant takes.
    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        if db::is_idempotency_key_held(error) {
            return Some(Self::Key);
        }
        db::is_row_held(error).then_some(Self::Row)
    }
}

impl IsolatedTenants {
    pub(super) fn is_isolated(&self, tenant: TenantId) -> bool {
        let queues = self.queues();
        queues.get(&tenant).and_then(|queue| queue.until).is_some_and(|until| Instant::now() < until)
    }

    /// Queues a request for the tenant's task; returns `true` if that task must be started.
    pub(super) fn push(&self, tenant: TenantId, request: Isolated) -> bool {
        let mut queues = self.queues();
        let queue = queues.entry(tenant).or_default();
        if queue.requests.len() >= MAX_WAITING {
            let error = if request.known.in_doubt { EnqueueError::Unavailable } else { EnqueueError::Overloaded };
            let _ = request.waiting.answer.send(Err(error));
            return false;
        }
        queue.requests.push_back(request);
        !std::mem::replace(&mut queue.is_served, true)
    }

    pub(super) fn isolate(&self, tenant: TenantId) {
        self.queues().entry(tenant).or_default().until = Some(Instant::now() + PERIOD);
    }

    /// Whether the row of this idempotency key was locked at the last try.
    pub(super) fn is_in_flight(&self, tenant: TenantId, key: Option<&str>) -> bool {
        let queues = self.queues();
        queues.get(&tenant).zip(key).is_some_and(|(queue, key)| queue.keys_in_flight.contains(key))
    }

    pub(super) fn note_in_flight(&self, tenant: TenantId, key: &str) {
        self.queues().entry(tenant).or_default().keys_in_flight.insert(key.to_owned());
    }

    pub(super) fn forget_in_flight<'a>(&self, tenant: TenantId, keys: impl Iterator<Item = &'a str>) {
        if let Some(queue) = self.queues().get_mut(&tenant) {
            keys.for_each(|key| _ = queue.keys_in_flight.remove(key));
        }
    }

    /// The next requests to write; empty if none wait, which ends the task.
    pub(super) fn take(&self, tenant: TenantId) -> Vec<Isolated> {
        let (mut queues, mut weight) = (self.queues(), 0);
        let Some(queue) = queues.get_mut(&tenant) else { return Vec::new() };
        let mut batch = Vec::new();
        while batch.len() < MAX_REQUESTS && weight < MAX_WEIGHT {
            let Some(next) = queue.requests.pop_front() else { break };
            weight += next.waiting.weight();
            batch.push(next);
        }
        queue.is_served = !batch.is_empty();
        // Also removes tenants that are no longer isolated, so that the table does not keep every
        // tenant that ever was.
        queues.retain(|_, queue| queue.is_served || queue.until.is_some_and(|until| Instant::now() < until));
        batch
    }

    /// A panic while the lock is held leaves the table consistent.
    fn queues(&self) -> MutexGuard<'_, HashMap<TenantId, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    pub(super) fn after_try(self, in_doubt: bool) -> Self {
        Self { in_doubt, ..self }
    }
}

impl Isolated {
    pub(super) fn new(waiting: Waiting, in_doubt: bool) -> Self {
        let deadline = waiting.since + patience::PATIENCE;
        Self { waiting, known: Known { in_doubt, held: None, deadline } }
    }

    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.known.deadline
    }

    /// Shortens the deadline after the request hit a lock while written alone.
    pub(super) fn blocked(mut self, held: Option<Held>) -> Self {
        let deadline = self.known.deadline.min(self.waiting.since + BLOCKED);
        self.known = Known { held, deadline, ..self.known };
        self
    }

    pub(super) fn refuse(self) {
        let error = match self.known.held {
            Some(Held::Key) => EnqueueError::KeyInFlight,
            Some(Held::Row) if !self.known.in_doubt => EnqueueError::Overloaded,
            _ => EnqueueError::Unavailable,
        };
        let _ = self.waiting.answer.send(Err(error));
    }
}
