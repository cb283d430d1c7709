//! The requests that wait for a commit.
//!
//! Invariant: a request waits for its own tenant's requests and for one group of the others', however many those have waiting. A group of single
//! requests holds few jobs, and the groups of bulk requests leave one writer to them, so what one tenant inserts by the thousand does not hold
//! up another's one job. A tenant that fills its part of the room is refused, and nobody else.

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

/// Requests of each class that may wait; one more is told that the system is overloaded.
const WAITING_REQUESTS: usize = 10_000;
/// Requests of one group.
pub(super) const MAX_REQUESTS: usize = 500;
/// Jobs of one group, beyond its last request.
pub(super) const MAX_JOBS: usize = 1_000;
/// The same of a group of requests that are no bulk.
const MAX_SINGLE_JOBS: usize = 250;
/// A request with more jobs is bulk.
const MAX_JOBS_OF_SINGLE: usize = 10;

/// What waits, and who may write it.
pub(super) struct Intake {
    state: Mutex<State>,
    /// Something came, or a place for a bulk group was given back, or no more comes.
    changed: Notify,
    /// Groups that may be written at the same time.
    places: Arc<Semaphore>,
    /// Bulk groups that may be.
    bulk_places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    singles: FairQueue<Waiting>,
    bulks: FairQueue<Waiting>,
    /// The last group was one of bulk requests.
    was_bulk: bool,
    is_closed: bool,
}

/// Requests that are written together.
pub(super) struct Group {
    pub(super) requests: Vec<Waiting>,
    /// Held while they are written.
    pub(super) place: Place,
}

/// The right to write a group, until it is dropped.
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

/// Where requests are left, until it is dropped.
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

impl Intake {
    /// For so many groups at the same time.
    pub(super) fn new(writers: usize) -> Arc<Self> {
        let places = |count: usize| Arc::new(Semaphore::new(count.max(1)));
        let (places, bulk_places) = (places(writers), places(writers - 1));
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), places, bulk_places })
    }

    fn push(&self, waiting: Waiting) -> Result<(), EnqueueError> {
        let (tenant, jobs) = (waiting.tenant(), waiting.request.jobs.len());
        let mut state = self.lock();
        let queue = if jobs > MAX_JOBS_OF_SINGLE { &mut state.bulks } else { &mut state.singles };
        queue.push_bounded(WAITING_REQUESTS, tenant, jobs, waiting).map_err(|_| EnqueueError::Overloaded)?;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a place, as long as it takes, so that a group grows while all are busy; then for requests up to so long, and returns `None` if
    /// none came. A group without requests says that no more comes.
    pub(super) async fn next(self: &Arc<Self>, patience: Duration) -> Option<Group> {
        let any = Arc::clone(&self.places).acquire_owned().await.expect("the places stay open as long as this");
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

    /// The classes take turns where both wait.
    fn take(&self) -> Option<(Vec<Waiting>, Option<OwnedSemaphorePermit>)> {
        let mut state = self.lock();
        let bulk = if state.bulks.is_empty() || state.was_bulk && !state.singles.is_empty() {
            None
        } else {
            Arc::clone(&self.bulk_places).try_acquire_owned().ok()
        };
        state.was_bulk = bulk.is_some();
        let requests = match bulk {
            Some(_) => state.bulks.take(MAX_REQUESTS, MAX_JOBS),
            None => state.singles.take(MAX_REQUESTS, MAX_SINGLE_JOBS),
        };
        let is_over = state.is_closed && state.bulks.is_empty();
        (!requests.is_empty() || is_over).then_some((requests, bulk))
    }

    /// A panic while the lock is held leaves lines that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
