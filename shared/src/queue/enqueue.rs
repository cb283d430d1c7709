//! Commits jobs: requests that arrive together share one transaction.
//!
//! Invariant: a request is answered, and its jobs are pushed to the index, only after the commit
//! that contains them. The push may fail; the sweep repeats it. A request whose commit has an
//! unknown outcome is looked up before it is repeated: the ids stay the same, so the lookup finds
//! what the first try committed.

mod group;
mod intake;
mod isolated;
mod pusher;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

pub use self::pusher::LOOK_AHEAD;
use self::{
    intake::{Intake, Open},
    isolated::queues::IsolatedTenants,
    pusher::Pusher,
    writer::{LastCommit, Writer},
};
use crate::queue::{
    index::Index,
    job::NewJob,
    ledger::{
        insert, insert_related,
        relations::{Refused, Relations},
        request::{EnqueueRequest, Enqueued},
    },
    waiting_job::WaitingJob,
};
use crate::{
    clock::Clock,
    db::{PinnedConnections, SystemDb, TenantTx},
    patience,
};

/// While one group's commit is flushed to disk, the next group is filled and sent.
const WRITERS: usize = 3;

/// Why nothing was committed, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// More of the tenant's requests are waiting than can be committed in time, or its other work
    /// has a row locked that this request needs.
    #[error("too many requests are waiting for a commit")]
    Overloaded,
    /// Another request with this idempotency key is not committed yet.
    #[error("another request with this idempotency key is in flight")]
    KeyInFlight,
    /// The ledger did not answer; repeating with the same idempotency key is safe.
    #[error("the ledger is unavailable")]
    Unavailable,
    /// The ledger refused the jobs.
    #[error("ledger: {0}")]
    Ledger(Arc<sqlx::Error>),
}

struct Waiting {
    request: EnqueueRequest,
    since: Instant,
    answer: oneshot::Sender<Result<Enqueued, EnqueueError>>,
    claim: Claim,
}

/// Decides between the writer that begins to commit a request and the client that stops waiting.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether the caller is the first.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Waiting {
    /// Whether the request has waited so long that its client was already refused.
    fn is_late(&self) -> bool {
        self.since.elapsed() >= patience::PATIENCE
    }
}

/// Commits jobs and pushes them to the index. Cheap to clone.
#[derive(Clone)]
pub struct Producer {
    requests: Arc<Open>,
    pusher: Pusher,
    commits: TaskTracker,
    last_commit: LastCommit,
}

impl Producer {
    /// Starts the writer task, which ends once the last clone is dropped and all waiting requests
    /// are committed.
    pub fn start(db: &SystemDb, index: Index, clock: Clock) -> Self {
        let intake = Intake::new(WRITERS);
        let pusher = Pusher::start(index, clock);
        let (connections, commits) = (PinnedConnections::new(db, WRITERS), TaskTracker::new());
        let writer = Writer {
            connections,
            pusher: pusher.clone(),
            commits: commits.clone(),
            isolated: IsolatedTenants::default(),
            last_commit: LastCommit::default(),
        };
        let last_commit = writer.last_commit.clone();
        tokio::spawn(group::write(Arc::clone(&intake), writer));
        Self { requests: Arc::new(Open(intake)), pusher, commits, last_commit }
    }

    /// Waits until accepted requests are committed and lone jobs are pushed, for up to 5 s. Called
    /// when a process shuts down, after its last request.
    pub async fn finish(&self) {
        self.commits.close();
        if timeout(group::PATIENCE, self.commits.wait()).await.is_err() {
            tracing::warn!("stopping before all commits are finished");
        }
    }

    /// Commits the request's jobs and returns once the commit is durable. If no result arrives in
    /// time, the error is [`EnqueueError::Unavailable`] and the outcome is unknown, or
    /// [`EnqueueError::Overloaded`] if the jobs are not committed because of the tenant's other work.
    pub async fn enqueue(&self, request: EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        // A request without jobs belongs to no tenant.
        if request.jobs.is_empty() {
            return Ok(Enqueued::Created);
        }
        let (answer, committed) = oneshot::channel();
        let claim = Claim::default();
        let waiting = Waiting { request, since: Instant::now(), answer, claim: claim.clone() };
        self.requests.push(waiting)?;
        if let Some(Ok(result)) = patience::within(committed).await {
            return result;
        }
        // Requests of others are committed, so the tenant's own requests were too many.
        let is_own_backlog = claim.take() && self.last_commit.is_recent();
        Err(if is_own_backlog { EnqueueError::Overloaded } else { EnqueueError::Unavailable })
    }

    /// Inserts jobs of the transaction's tenant within that transaction, and returns those refused
    /// because of their relations. After the commit, [`Self::announce`] pushes the jobs at once.
    pub async fn enqueue_in(transaction: &mut TenantTx, jobs: &[NewJob]) -> Result<Vec<Refused>, sqlx::Error> {
        if insert_related::has_relations(jobs) {
            return insert_related::insert_in(transaction, jobs).await;
        }
        insert::insert_in(transaction, jobs).await?;
        Ok(Vec::new())
    }

    /// Pushes jobs that were committed elsewhere to the index. If the push is lost, the sweep
    /// repeats it.
    pub fn announce(&self, jobs: &[NewJob]) {
        self.pusher.announce(jobs.iter().filter(|job| !job.relations.as_deref().is_some_and(Relations::waits)));
    }
}

impl NewJob {
    /// The job as the index stores it.
    pub(in crate::queue) fn waiting(&self) -> WaitingJob {
        let run_at_ms = self.run_at.map(|run_at| run_at.timestamp_millis());
        WaitingJob { id: self.id, tenant: self.tenant, priority: self.priority, run_at_ms }
    }
}
