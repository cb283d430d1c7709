//! Pushes committed jobs to the index, separately from the commits, so that Redis can neither delay
//! nor fail a response.
//!
//! Invariant: a push starts after the commit that contains its jobs. It may arrive late, twice or
//! never. A tenant's jobs wait for one call with other tenants' jobs, however long Redis takes for
//! it and however many jobs other tenants have waiting.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    clock::Clock,
    fair_queue::FairQueue,
    faults::{self, Point},
    queue::{Index, NewJob, QueueName, WaitingJob, waiting_job::by_queue},
};

/// Jobs that wait to be pushed. While Redis is unavailable, jobs beyond this bound are dropped: the
/// sweep and the rebuild read the ledger.
const WAITING_JOBS: usize = 50_000;
/// Jobs pushed by one call.
const MAX_BATCH: usize = 100;
/// Lone jobs pushed at the same time; a further one joins the shared queue.
const LONE_PUSHES: usize = 32;
/// Jobs due later than this stay in the ledger only, until the scheduler promotes them.
pub const LOOK_AHEAD: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(super) struct Pusher {
    waiting: Arc<Unpushed>,
    index: Index,
    lone: Arc<Semaphore>,
    clock: Clock,
    /// The push task ends when all clones are dropped.
    _open: Arc<DropGuard>,
}

/// Jobs that the shared task pushes in batches.
#[derive(Default)]
struct Unpushed {
    jobs: Mutex<FairQueue<(QueueName, WaitingJob)>>,
    came: Notify,
}

impl Unpushed {
    /// A panic while the lock is held leaves the queue consistent.
    fn lock(&self) -> MutexGuard<'_, FairQueue<(QueueName, WaitingJob)>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pusher {
    pub(super) fn start(index: Index, clock: Clock) -> Self {
        let (waiting, closed) = (Arc::<Unpushed>::default(), CancellationToken::new());
        tokio::spawn(push(index.clone(), Arc::clone(&waiting), closed.clone()));
        let lone = Arc::new(Semaphore::new(LONE_PUSHES));
        Self { waiting, index, lone, clock, _open: Arc::new(closed.drop_guard()) }
    }

    pub(super) fn announce<'a>(&self, jobs: impl Iterator<Item = &'a NewJob>) {
        for (queue, job) in self.near(jobs) {
            if !self.push(queue, job) {
                return;
            }
        }
    }

    /// Like [`Self::announce`], called by the task that committed the jobs. A lone job is pushed by
    /// a new task, which this thread runs next: waking the shared push task took longer than the
    /// push.
    pub(super) fn announce_from<'a>(&self, tasks: &TaskTracker, jobs: impl Iterator<Item = &'a NewJob>) {
        let mut jobs = self.near(jobs).peekable();
        let Some((queue, job)) = jobs.next() else { return };
        if jobs.peek().is_none()
            && let Ok(permit) = Arc::clone(&self.lone).try_acquire_owned()
        {
            let index = self.index.clone();
            tasks.spawn(async move {
                faults::pass(Point::BeforePush).await;
                if let Err(error) = index.push(&queue, &[job]).await {
                    tracing::debug!(%queue, %error, "failed to push a job to the index; the sweep will push it later");
                }
                drop(permit);
            });
            return;
        }
        let mut has_room = self.push(queue, job);
        while has_room && let Some((queue, job)) = jobs.next() {
            has_room = self.push(queue, job);
        }
    }

    /// The jobs that are due within the look-ahead.
    fn near<'a>(&self, jobs: impl Iterator<Item = &'a NewJob>) -> impl Iterator<Item = (QueueName, WaitingJob)> {
        let now_ms = self.clock.now().timestamp_millis();
        let horizon_ms = now_ms + i64::try_from(LOOK_AHEAD.as_millis()).unwrap_or(i64::MAX);
        jobs.filter_map(move |job| {
            let waiting = job.waiting();
            let is_near = waiting.run_at_ms.is_none_or(|run_at_ms| run_at_ms <= horizon_ms);
            is_near.then(|| (job.queue.clone(), waiting))
        })
    }

    /// Returns `false` if there is no room.
    fn push(&self, queue: QueueName, job: WaitingJob) -> bool {
        let pushed = self.waiting.lock().push_bounded(WAITING_JOBS, job.tenant, 1, (queue, job)).is_ok();
        self.waiting.came.notify_one();
        pushed
    }
}

async fn push(index: Index, waiting: Arc<Unpushed>, closed: CancellationToken) {
    let mut failing = false;
    loop {
        let batch = waiting.lock().take(MAX_BATCH, MAX_BATCH);
        if batch.is_empty() {
            if closed.run_until_cancelled(waiting.came.notified()).await.is_none() && waiting.lock().is_empty() {
                return;
            }
            continue;
        }
        faults::pass(Point::BeforePush).await;
        for (queue, jobs) in by_queue(batch) {
            let result = index.push(&queue, &jobs).await;
            match (&result, failing) {
                (Err(error), false) => {
                    tracing::warn!(%queue, %error, "failing to push jobs to the index; the sweep will push them later");
                }
                (Ok(()), true) => tracing::info!(%queue, "pushing jobs to the index works again"),
                _ => {}
            }
            failing = result.is_err();
        }
        if failing {
            sleep(Duration::from_millis(50)).await;
        }
    }
}
