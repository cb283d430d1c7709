//! Telling the index of committed jobs, apart from the commits, so that Redis can never slow or fail an answer.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use crate::{
    clock::Clock,
    faults::{self, Point},
    queue::{Index, NewJob, QueueName, WaitingJob, index::by_queue},
};

/// Jobs that wait to be told. When Redis is away the rest is dropped: the sweep and the rebuild read the ledger.
const WAITING_JOBS: usize = 50_000;
const MAX_BATCH: usize = 1_000;
/// Jobs due later than this stay in the ledger alone until the scheduler promotes them.
pub(super) const LOOK_AHEAD: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(super) struct Pusher {
    sender: mpsc::Sender<(QueueName, WaitingJob)>,
    clock: Clock,
}

impl Pusher {
    pub(super) fn start(index: Index, clock: Clock) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_JOBS);
        tokio::spawn(push(index, receiver));
        Self { sender, clock }
    }

    pub(super) fn announce<'a>(&self, jobs: impl Iterator<Item = &'a NewJob>) {
        let now_ms = self.clock.now().timestamp_millis();
        let horizon_ms = now_ms + i64::try_from(LOOK_AHEAD.as_millis()).unwrap_or(i64::MAX);
        for job in jobs {
            let waiting = job.waiting();
            if waiting.run_at_ms.is_none_or(|run_at_ms| run_at_ms <= horizon_ms)
                && !self.push(job.queue.clone(), waiting)
            {
                return;
            }
        }
    }

    /// `false` if there is no room.
    pub(super) fn push(&self, queue: QueueName, job: WaitingJob) -> bool {
        self.sender.try_send((queue, job)).is_ok()
    }
}

async fn push(index: Index, mut receiver: mpsc::Receiver<(QueueName, WaitingJob)>) {
    let (mut batch, mut failing) = (Vec::with_capacity(MAX_BATCH), false);
    while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
        faults::pass(Point::BeforePush).await;
        for (queue, jobs) in by_queue(batch.drain(..)) {
            let result = index.push(&queue, &jobs).await;
            match (&result, failing) {
                (Err(error), false) => {
                    tracing::warn!(%queue, %error, "the index does not take jobs; the sweep will bring them later");
                }
                (Ok(()), true) => tracing::info!(%queue, "the index takes jobs again"),
                _ => {}
            }
            failing = result.is_err();
        }
        if failing {
            sleep(Duration::from_millis(50)).await;
        }
    }
}
