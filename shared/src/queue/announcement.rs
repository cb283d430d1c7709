//! Publishes committed changes of the ledger to the index.
//!
//! Invariant: nothing depends on an announcement. The crawl pushes waiting jobs that the index lacks,
//! a fetch drops jobs that are final in the ledger, the ledger refuses the finish of a cancelled job,
//! and a follower sees the change at its next read. So a failure only costs time, and is logged.

use uuid::Uuid;

use super::{
    index::Index,
    job::QueueName,
    ledger::follow_up::{FollowUp, Position},
    waiting_job::{CancelledJob, WaitingJob, by_queue},
};
use crate::{
    faults::{self, Point},
    tenancy::TenantId,
};

impl FollowUp {
    /// Pushes released jobs, and publishes the other changes.
    pub async fn announce(&self, index: &Index) {
        if *self == Self::default() {
            return;
        }
        faults::pass(Point::AfterFollowUpBeforeAnnouncement).await;
        push(index, self.waiting.iter().map(|(queue, job)| (queue, *job))).await;
        all_cancelled(index, &self.cancelled).await;
        let released = self.waiting.iter().map(|(queue, job)| (queue, (job.id, job.tenant)));
        let touched = self.touched.iter().map(|(queue, tenant, id)| (queue, (*id, *tenant)));
        changed(index, released.chain(touched)).await;
    }
}

/// Removes a cancelled job from the index and notifies its holder; then announces its follow-up.
pub async fn cancelled(index: &Index, job: &Position) {
    faults::pass(Point::AfterCancelBeforeAnnouncement).await;
    all_cancelled(index, std::slice::from_ref(job)).await;
    job.follow_up.announce(index).await;
}

/// Removes cancelled jobs from the index and notifies their holders.
pub async fn all_cancelled(index: &Index, jobs: &[Position]) {
    let cancelled = |job: &Position| {
        let Position { id, tenant, priority, attempt, .. } = *job;
        CancelledJob { id, tenant, priority, attempt }
    };
    for (queue, jobs) in by_queue(jobs.iter().map(|job| (&job.queue, cancelled(job)))) {
        if let Err(error) = index.cancel(queue, &jobs).await {
            tracing::debug!(%queue, %error, "failed to announce cancellations to the index");
        }
    }
}

/// Pushes redriven jobs to the index, ready to run at once.
pub async fn redriven(index: &Index, jobs: &[Position]) {
    let waiting =
        |job: &Position| WaitingJob { id: job.id, tenant: job.tenant, priority: job.priority, run_at_ms: None };
    push(index, jobs.iter().map(|job| (&job.queue, waiting(job)))).await;
    changed(index, jobs.iter().map(|job| (&job.queue, (job.id, job.tenant)))).await;
}

async fn push<'a>(index: &Index, jobs: impl Iterator<Item = (&'a QueueName, WaitingJob)>) {
    for (queue, jobs) in by_queue(jobs) {
        if let Err(error) = index.push(queue, &jobs).await {
            tracing::debug!(%queue, %error, "failed to push released jobs to the index");
        }
    }
}

/// Notifies the followers of jobs.
async fn changed<'a>(index: &Index, jobs: impl Iterator<Item = (&'a QueueName, (Uuid, TenantId))>) {
    for (queue, jobs) in by_queue(jobs) {
        if let Err(error) = index.announce(queue, &jobs).await {
            tracing::debug!(%queue, %error, "failed to notify followers of a job change");
        }
    }
}
