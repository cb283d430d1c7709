//! Direct dispatch. A fetch that returns fewer jobs than requested marks this worker ready for
//! another job; a fetch that returns all of them marks it ready for the first job of a newly active
//! tenant. The script that adds such a job leases it to this worker and publishes the lease, which
//! saves the fetch.
//!
//! Invariant: a job without a free permit, or one that may not start now, is released at once;
//! otherwise no worker could take it before its lease ends.

use std::sync::Arc;

use shared::queue::{DirectDispatch, Shard, dispatch::Consumer};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::yield_now,
};

use super::{intake::Intake, notifications::Notifications};
use crate::process::Process;

/// Jobs that are read from the ledger at once.
const BATCH: usize = 32;

/// Accepts dispatched jobs.
pub(super) struct DirectDispatches {
    pub process: Process,
    /// Reads the dispatched jobs from the ledger.
    pub consumer: Consumer,
    /// Each ready mark yields at most one dispatch, so there are no more of them than fetches.
    pub dispatched: mpsc::UnboundedReceiver<(Shard, DirectDispatch)>,
    pub intake: Intake,
    /// Makes the shard due for a fetch, which sets the next ready mark.
    pub notifications: Arc<Notifications>,
}

impl DirectDispatches {
    /// Accepts dispatched jobs until the process stops.
    pub async fn run(&mut self) {
        let (stop, mut batch) = (self.process.stop.clone(), Vec::with_capacity(BATCH));
        while let Some(1..) = stop.run_until_cancelled(self.dispatched.recv_many(&mut batch, BATCH)).await {
            self.accept(std::mem::take(&mut batch)).await;
        }
        self.release(batch).await;
    }

    /// Releases the jobs dispatched for ready marks that were set before the stop, until the
    /// notifications end.
    pub async fn release_rest(mut self) {
        while let Some(dispatch) = self.dispatched.recv().await {
            self.release([dispatch]).await;
        }
    }

    async fn accept(&self, batch: Vec<(Shard, DirectDispatch)>) {
        let Some(_may_lease) = self.process.may_lease_now() else { return self.release(batch).await };
        let (mut accepted, mut permits) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for dispatch in batch {
            match self.permit() {
                Some(permit) => {
                    permits.push(permit);
                    accepted.push(dispatch);
                }
                None => self.release([dispatch]).await,
            }
        }
        let results = self.consumer.accept(&accepted).await;
        for ((result, permit), (shard, _)) in results.into_iter().zip(permits).zip(&accepted) {
            match result {
                Ok(fetched) => self.intake.accept(fetched.leases, std::iter::once(permit)).await,
                Err(error) => tracing::debug!(%shard, %error, "could not accept a dispatched job"),
            }
        }
        // Let the jobs start first.
        yield_now().await;
        for (shard, _) in accepted {
            self.notifications.notify(&shard);
        }
    }

    /// The fetch loop leaves no permit free while all slots are busy, so a reserved permit is the
    /// fallback.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.process.budget.permit_now().or_else(|| self.process.budget.reserved_now())
    }

    async fn release(&self, dispatches: impl IntoIterator<Item = (Shard, DirectDispatch)>) {
        for (shard, dispatch) in dispatches {
            if let Err(error) = self.consumer.refuse(&shard, &dispatch).await {
                tracing::debug!(%shard, %error, "could not release a dispatched job; its lease will expire");
            }
        }
    }
}
