//! The requests that wait for a commit.
//!
//! Invariant: a request waits for its own tenant's requests and for one group of other tenants'
//! requests, however many those have waiting. A group of single requests contains few jobs, and
//! bulk groups leave one writer to single requests, so one tenant's inserts of thousands of jobs do
//! not delay another tenant's single job. A tenant that fills its share of the queue is refused;
//! other tenants are not.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{EnqueueError, Waiting};
use crate::fair_queue::FairQueue;

/// Bound on waiting requests of each class (single, bulk); beyond it a request is refused as
/// overloaded.
const WAITING_REQUESTS: usize = 10_000;
/// Requests in one group.
pub(super) const MAX_REQUESTS: usize = 500;
/// Weight of one group; only its last request may exceed the bound.
pub(super) const MAX_WEIGHT: usize = 1_000;
/// The same for a group of single requests.
const MAX_SINGLE_WEIGHT: usize = 250;
/// A request that weighs more counts as bulk.
const MAX_WEIGHT_OF_SINGLE: usize = 10;
/// Bytes of args that weigh as much as a job.
const BYTES_OF_A_JOB: usize = 8 * 1024;

/// The waiting requests and the permits to write them.
pub(super) struct Intake {
    state: Mutex<State>,
    /// Notified when a request arrives, a bulk permit is returned, or the intake is closed.
    changed: Notify,
    /// Permits for groups written at the same time.
    places: Arc<Semaphore>,
    /// Permits for bulk groups among them.
    bulk_places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    singles: FairQueue<Waiting>,
    bulks: FairQueue<Waiting>,
    was_bulk: bool,
    is_closed: bool,
}

/// Requests that are written together.
pub(super) struct Group {
    pub(super) requests: Vec<Waiting>,
    /// Held while the group is written.
    pub(super) place: Place,
}

/// The permit to write a group, until it is dropped.
pub(super) struct Place {
    intake: Arc<Intake>,
    bulk: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.bulk.take().is_some() {
            self.intake.changed.notify_one();
        }
    }
}

/// The sending side of the intake; dropping it closes the intake.
pub(super) struct Open(pub(super) Arc<Intake>);

impl Open {
    /// Adds a request, unless its tenant has too many waiting.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), EnqueueError> {
        self.0.push(waiting)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Waiting {
    /// The work that a commit of the request is: its jobs, and their args where those are large.
    pub(super) fn weight(&self) -> usize {
        self.request.jobs.iter().map(|job| 1 + job.args.get().len() / BYTES_OF_A_JOB).sum()
    }
}

impl Intake {
    /// An intake for this many groups at the same time.
    pub(super) fn new(writers: usize) -> Arc<Self> {
        let places = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        let (places, bulk_places) = (places(writers), places(writers - 1));
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), places, bulk_places })
    }

    fn push(&self, waiting: Waiting) -> Result<(), EnqueueError> {
        let (tenant, weight) = (waiting.tenant(), waiting.weight());
        let mut state = self.lock();
        let queue = if weight > MAX_WEIGHT_OF_SINGLE { &mut state.bulks } else { &mut state.singles };
        queue.push_bounded(WAITING_REQUESTS, tenant, weight, waiting).map_err(|_| EnqueueError::Overloaded)?;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a permit without a time limit, so that a group grows while all writers are busy;
    /// then waits up to `patience` for requests and returns `None` if none arrived. A group without
    /// requests means that the intake is closed and empty.
    pub(super) async fn next(self: &Arc<Self>, patience: Duration) -> Option<Group> {
        let any = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let (requests, bulk) = timeout(patience, self.taken()).await.ok()?;
        Some(Group { requests, place: Place { intake: Arc::clone(self), bulk, _any: any } })
    }

    async fn taken(&self) -> (Vec<Waiting>, Option<OwnedSemaphorePermit>) {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    /// The classes alternate while both have waiting requests.
    fn take(&self) -> Option<(Vec<Waiting>, Option<OwnedSemaphorePermit>)> {
        let mut state = self.lock();
        let bulk = if state.bulks.is_empty() || state.was_bulk && !state.singles.is_empty() {
            None
        } else {
            Arc::clone(&self.bulk_places).try_acquire_owned().ok()
        };
        state.was_bulk = bulk.is_some();
        let requests = match bulk {
            Some(_) => state.bulks.take(MAX_REQUESTS, MAX_WEIGHT),
            None => state.singles.take(MAX_REQUESTS, MAX_SINGLE_WEIGHT),
        };
        let is_over = state.is_closed && state.bulks.is_empty();
        (!requests.is_empty() || is_over).then_some((requests, bulk))
    }

    /// A panic while the lock is held leaves the queues consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
