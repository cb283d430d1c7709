//! Committing jobs: requests that arrive together share one transaction.
//!
//! Invariant: a request is answered only after the commit that holds its jobs, and no worker is told of a job before. Telling the
//! index comes after that and may fail; the sweep makes up for it. A request whose commit has an unknown outcome is looked up, not
//! repeated blindly: its ids are the same, so the second look sees what the first try left.

mod group;
mod intake;
mod isolated;
mod pusher;
mod statements;
mod tied;

use std::{collections::HashSet, sync::Arc};

use serde_json::value::RawValue;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::{
    group::Writer,
    intake::{Intake, Open},
    isolated::IsolatedTenants,
    pusher::Pusher,
};
use super::{
    Index, NewJob, WaitingJob,
    ties::{Refused, Ties},
};
use crate::{
    clock::Clock,
    db::{Kept, SystemDb, TenantTx},
    patience,
};

/// While one group's commit is being flushed to disk the next one is filled and sent.
const WRITERS: usize = 3;

/// A client's key for a request, with what tells its body from another.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The value of the `Idempotency-Key` header.
    pub key: String,
    /// A hash over method, path and body.
    pub fingerprint: Vec<u8>,
    /// The answer to store for a replay, where it cannot be read from the ledger.
    pub response: Option<Box<RawValue>>,
}

/// Jobs that are committed together or not at all, all of one tenant.
#[derive(Debug)]
pub struct EnqueueRequest {
    /// At least one job.
    pub jobs: Vec<NewJob>,
    /// The client's key, if it sent one.
    pub idempotency: Option<Idempotency>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Enqueued {
    /// Its jobs are in the ledger.
    Created,
    /// Its jobs are in the ledger but for these: ties stood against them. If that is all of them, nothing was committed.
    CreatedExcept(Vec<Refused>),
    /// An earlier request with this key did the work.
    Replayed {
        /// The first job of the earlier request.
        first_job: Uuid,
        /// The stored answer, if there is one.
        response: Option<Box<RawValue>>,
        /// The jobs that were refused then.
        refused: Vec<Refused>,
    },
    /// The key was used for another body.
    KeyReused,
}

impl Enqueued {
    fn created_except(refused: Vec<Refused>) -> Self {
        if refused.is_empty() { Self::Created } else { Self::CreatedExcept(refused) }
    }

    /// Whether there are jobs that were not there before.
    const fn has_created(&self) -> bool {
        matches!(self, Self::Created | Self::CreatedExcept(_))
    }
}

/// Why nothing was committed, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// More requests of the tenant wait than can be committed in time.
    #[error("too many requests wait for a commit")]
    Overloaded,
    /// Another request with this idempotency key is not committed yet.
    #[error("another request with this idempotency key is in flight")]
    KeyInFlight,
    /// The ledger did not answer; a repeat with the same idempotency key is safe.
    #[error("the ledger is unavailable")]
    Unavailable,
    /// The ledger refused the jobs.
    #[error("ledger: {0}")]
    Ledger(Arc<sqlx::Error>),
}

/// What became of a group of requests.
struct Committed {
    answers: Vec<Enqueued>,
    /// Jobs that the index is not to be told of.
    idle: HashSet<Uuid>,
}

impl Committed {
    /// The index is to be told of all of them.
    fn of_all(answers: Vec<Enqueued>) -> Self {
        Self { answers, idle: HashSet::new() }
    }
}

struct Waiting {
    request: EnqueueRequest,
    since: Instant,
    answer: oneshot::Sender<Result<Enqueued, EnqueueError>>,
}

impl Waiting {
    /// Whether its client has been refused meanwhile.
    fn is_late(&self) -> bool {
        self.since.elapsed() >= patience::PATIENCE
    }
}

/// Commits jobs and makes them known. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    requests: Arc<Open>,
    pusher: Pusher,
    commits: TaskTracker,
}

impl Producer {
    /// Starts the writing, which ends when the last clone is dropped and what waits is committed.
    pub fn start(db: &SystemDb, index: Index, clock: Clock) -> Self {
        let intake = Intake::new(WRITERS);
        let pusher = Pusher::start(index, clock);
        let (connections, commits) = (Kept::new(db, WRITERS), TaskTracker::new());
        let writer = Writer {
            connections,
            pusher: pusher.clone(),
            commits: commits.clone(),
            isolated: IsolatedTenants::default(),
        };
        tokio::spawn(group::write(Arc::clone(&intake), writer));
        Self { requests: Arc::new(Open(intake)), pusher, commits }
    }

    /// Waits until what was accepted is committed and lone jobs are pushed, but not for ever. For the end of a process, after its last
    /// request.
    pub async fn finish(&self) {
        self.commits.close();
        if timeout(group::PATIENCE, self.commits.wait()).await.is_err() {
            tracing::warn!("commits are left unfinished");
        }
    }

    /// Commits the request's jobs and returns when that is durable. An answer that did not come in time is [`EnqueueError::Unavailable`]:
    /// the outcome is not known then.
    pub async fn enqueue(&self, request: EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        // Without a job there is no tenant whose request it is.
        if request.jobs.is_empty() {
            return Ok(Enqueued::Created);
        }
        let (answer, committed) = oneshot::channel();
        let waiting = Waiting { request, since: Instant::now(), answer };
        self.requests.push(waiting)?;
        let answer = patience::within(committed).await;
        answer.and_then(Result::ok).unwrap_or(Err(EnqueueError::Unavailable))
    }

    /// Writes jobs of the transaction's tenant inside it, and says which were refused because of their ties. After its commit,
    /// [`Self::announce`] makes them known at once.
    pub async fn enqueue_in(transaction: &mut TenantTx, jobs: &[NewJob]) -> Result<Vec<Refused>, sqlx::Error> {
        if tied::is_tied(jobs) {
            return tied::insert_in(transaction, jobs).await;
        }
        statements::insert_in(transaction, jobs).await?;
        Ok(Vec::new())
    }

    /// Tells the index of jobs that were committed elsewhere. A loss is made up for by the sweep.
    pub fn announce(&self, jobs: &[NewJob]) {
        self.pusher.announce(jobs.iter().filter(|job| !job.ties.as_deref().is_some_and(Ties::waits)));
    }
}

impl NewJob {
    /// As the index wants it.
    pub(super) fn waiting(&self) -> WaitingJob {
        let run_at_ms = self.run_at.map(|run_at| run_at.timestamp_millis());
        WaitingJob { id: self.id, tenant: self.tenant, priority: self.priority, run_at_ms }
    }
}
