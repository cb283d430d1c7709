//! Direct dispatch. A fetch that returns fewer jobs than requested marks this worker ready for
//! another job; a fetch that returns all of them marks it ready for the first job of a newly active
//! tenant. The script that adds such a job leases it to this worker and publishes the lease, which
//! saves the fetch.
//!
//! Invariant: a job without a free permit, or one that may not start now, is released at once;
//! otherwise no worker could take it before its lease ends.

use std::sync::Arc;

use shared::queue::{Grant, Shard, dispatch::Consumer};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::yield_now,
};
use tokio_util::sync::CancellationToken;

use crate::{capacity::Capacity, fetcher::Desk, listener::Wake, places::Usages, quarantine::Quarantine, stall::Stall};

/// Jobs that are read from the ledger at once.
const AT_ONCE: usize = 32;

/// Accepts dispatched leases.
pub struct Grants {
    /// Reads the leased jobs from the ledger.
    pub consumer: Consumer,
    /// The dispatched leases. Each ready mark yields at most one, so there are no more of them than
    /// fetches.
    pub granted: mpsc::UnboundedReceiver<(Shard, Grant)>,
    /// The fetch permits.
    pub capacity: Arc<Capacity>,
    /// Reserved permits, shared with [`crate::newly_active`].
    pub reserved_permits: Arc<Semaphore>,
    /// Permit counts of the queue shares.
    pub usages: Usages,
    /// Records and forwards leases.
    pub desk: Desk,
    /// Makes the shard due for a fetch, which sets the next ready mark.
    pub wake: Arc<Wake>,
    /// While a job is in quarantine, dispatched jobs are released.
    pub quarantine: Quarantine,
    /// While the handlers' runtime is stalled, dispatched jobs are released.
    pub stall: Stall,
}

impl Grants {
    /// Accepts dispatched leases until `stop`.
    pub async fn run(&mut self, stop: CancellationToken) {
        let mut grants = Vec::with_capacity(AT_ONCE);
        while let Some(1..) = stop.run_until_cancelled(self.granted.recv_many(&mut grants, AT_ONCE)).await {
            self.take(std::mem::take(&mut grants)).await;
        }
        self.refuse(grants).await;
    }

    /// Releases the jobs dispatched for ready marks that were set before the stop, until the
    /// notifications end.
    pub async fn refuse_rest(mut self) {
        while let Some(grant) = self.granted.recv().await {
            self.refuse([grant]).await;
        }
    }

    async fn take(&self, grants: Vec<(Shard, Grant)>) {
        let Some(_door) = self.quarantine.none_now().filter(|_| !self.stall.is_on()) else {
            return self.refuse(grants).await;
        };
        let (mut taken, mut permits) = (Vec::with_capacity(grants.len()), Vec::with_capacity(grants.len()));
        for grant in grants {
            match self.permit() {
                Some(permit) => {
                    permits.push(permit);
                    taken.push(grant);
                }
                None => self.refuse([grant]).await,
            }
        }
        let answers = self.consumer.take(&taken).await;
        for (((shard, _), permit), answer) in taken.iter().zip(permits).zip(answers) {
            match answer {
                Ok(mut fetched) => {
                    if let Some(lease) = fetched.leases.pop() {
                        self.desk.dispatch(vec![(lease, self.usages.place(shard, permit))]).await;
                    }
                }
                Err(error) => tracing::debug!(source = %shard, %error, "could not accept a dispatched job"),
            }
        }
        // Let the jobs start first.
        yield_now().await;
        for (shard, _) in taken {
            self.wake.up(Some(&shard));
        }
    }

    /// The fetch loop leaves no permit free while all slots are busy, so a reserved permit is the
    /// fallback.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.capacity.place_now().or_else(|| Arc::clone(&self.reserved_permits).try_acquire_owned().ok())
    }

    async fn refuse(&self, grants: impl IntoIterator<Item = (Shard, Grant)>) {
        for (shard, grant) in grants {
            if let Err(error) = self.consumer.refuse(&shard, &grant).await {
                tracing::debug!(source = %shard, %error, "could not release a dispatched job; its lease will expire");
            }
        }
    }
}
