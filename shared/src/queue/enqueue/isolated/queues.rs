//! The requests of isolated tenants, queued by tenant.
//!
//! Invariant: one task at a time writes a tenant's requests; it ends when none is left.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::super::{
    EnqueueError, Waiting,
    intake::{MAX_JOBS, MAX_REQUESTS},
};
use crate::tenancy::TenantId;

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
}

/// A request with the state left by earlier tries.
pub(super) struct Isolated {
    pub(super) waiting: Waiting,
    pub(super) in_doubt: bool,
    /// Whether the row of its idempotency key was locked at the last try.
    pub(super) key_in_flight: bool,
    pub(super) deadline: Instant,
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
            let _ = request.waiting.answer.send(Err(EnqueueError::Overloaded));
            return false;
        }
        queue.requests.push_back(request);
        !std::mem::replace(&mut queue.is_served, true)
    }

    pub(super) fn isolate(&self, tenant: TenantId) {
        self.queues().entry(tenant).or_default().until = Some(Instant::now() + PERIOD);
    }

    /// The next requests to write; empty if none wait, which ends the task.
    pub(super) fn take(&self, tenant: TenantId) -> Vec<Isolated> {
        let (mut queues, mut jobs) = (self.queues(), 0);
        let Some(queue) = queues.get_mut(&tenant) else { return Vec::new() };
        let mut batch = Vec::new();
        while batch.len() < MAX_REQUESTS && jobs < MAX_JOBS {
            let Some(next) = queue.requests.pop_front() else { break };
            jobs += next.waiting.request.jobs.len();
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

impl Isolated {
    pub(super) fn open(self) -> (Waiting, Instant) {
        (self.waiting, self.deadline)
    }

    /// Shortens the deadline after the request hit a lock while written alone.
    pub(super) fn blocked(self) -> Self {
        Self { deadline: self.deadline.min(self.waiting.since + BLOCKED), ..self }
    }

    pub(super) fn refuse(self) {
        let error = if self.key_in_flight { EnqueueError::KeyInFlight } else { EnqueueError::Unavailable };
        let _ = self.waiting.answer.send(Err(error));
    }
}
