//! Asking for a worker while its job is being committed, so that it need only be told afterwards.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, MaybeDone, maybe_done};

use super::{Waiting, pusher::Pusher};
use crate::{
    faults::{self, Point},
    queue::{Index, NewJob, QueueName, WaitingJob, index::Reservation},
};

/// A commit that took longer may have outlived the lease, or the index that knows of it: less than what `reserve.lua` leases for, and than
/// the grace in which holders assert their leases.
const SOON: Duration = Duration::from_secs(1);

/// A reservation that was asked for, and may not be answered yet. Where it is not brought to its end the lease runs out.
pub(super) struct Reserving {
    index: Index,
    queue: QueueName,
    job: WaitingJob,
    began: Instant,
    answer: MaybeDone<BoxFuture<'static, Option<Reservation>>>,
}

impl Reserving {
    /// For a job that comes alone and may start at once: of several at a time the workers are told better together.
    pub(super) fn ask(index: &Index, group: &[Waiting]) -> Option<Self> {
        let [Waiting { request, .. }] = group else { return None };
        let [job] = request.jobs.as_slice() else { return None };
        if !job.may_start_at_once() {
            return None;
        }
        let (queue, job) = (job.queue.clone(), job.waiting());
        let asked = {
            let (index, queue) = (index.clone(), queue.clone());
            async move {
                let answer = index.reserve(&queue, &job).await;
                answer
                    .inspect_err(|error| tracing::debug!(%queue, %error, "no worker could be reserved"))
                    .ok()
                    .flatten()
            }
        };
        Some(Self { index: index.clone(), queue, job, began: Instant::now(), answer: maybe_done(Box::pin(asked)) })
    }

    /// Waits for the commit, and for the answer only as long as that takes.
    pub(super) async fn beside<T>(&mut self, commit: impl Future<Output = T>) -> T {
        let mut commit = pin!(commit);
        poll_fn(|context| {
            let committed = commit.as_mut().poll(context);
            if committed.is_pending() {
                let _: Poll<()> = Pin::new(&mut self.answer).poll(context);
            }
            committed
        })
        .await
    }

    /// After the commit: tells the worker, or has the job pushed if there is none. `is_created`: whether the job is there at all.
    pub(super) async fn end(mut self, is_created: bool, pusher: Pusher) {
        if is_created {
            faults::pass(Point::BeforePush).await;
        }
        let answer = self.answer().await;
        let is_granted = match answer {
            Some(reservation) if is_created && self.began.elapsed() <= SOON => self.index.grant(reservation).await,
            Some(reservation) => self.index.release(reservation).await.map(|()| false),
            None => Ok(false),
        };
        let is_granted = is_granted.inspect_err(|error| {
            tracing::debug!(queue = %self.queue, %error, "a reserved worker could not be told; its lease runs out");
        });
        if is_created && !is_granted.unwrap_or(false) {
            // The sweep brings it where there is no room.
            pusher.push(self.queue, self.job);
        }
    }

    async fn answer(&mut self) -> Option<Reservation> {
        let mut answer = Pin::new(&mut self.answer);
        answer.as_mut().await;
        answer.take_output().flatten()
    }
}

impl NewJob {
    fn may_start_at_once(&self) -> bool {
        self.run_at.is_none() && self.ties.is_none()
    }
}
