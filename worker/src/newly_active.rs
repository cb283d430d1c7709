//! Fetches the first job of a newly active tenant outside of the fetch loop, in case no ready mark
//! exists to dispatch it directly (see [`crate::grants`]).
//!
//! Invariant: at most [`RESERVED_PERMITS`] jobs are held on reserved permits, in addition to the fetch
//! permits. They need a slot like all jobs; only their fetch is faster, because it waits neither
//! for the current fetch round nor for permits that other jobs hold.

use std::sync::Arc;

use shared::queue::{
    Shard, Welcome,
    dispatch::{Consumer, FetchError, Fetched},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    fetcher::{Desk, Dispatch},
    places::Usages,
    quarantine::Quarantine,
    slots::Slots,
    stall::Stall,
};

/// Reserved permits, shared with [`crate::grants`].
pub const RESERVED_PERMITS: usize = 2;
/// Capacity of the notification channel. The fetch loop finds the jobs of dropped notifications.
pub const NOTICES: usize = 16;

/// Leases the first jobs of newly active tenants.
pub struct NewlyActive {
    /// Leases through index and ledger.
    pub consumer: Consumer,
    /// Shards with a newly active tenant.
    pub notices: mpsc::Receiver<Shard>,
    /// The reserved permits, at most [`RESERVED_PERMITS`].
    pub reserved_permits: Arc<Semaphore>,
    /// Shows whether a slot will be free soon.
    pub slots: Slots<Dispatch>,
    /// Permit counts of the queue shares.
    pub usages: Usages,
    /// Records and forwards leases.
    pub desk: Desk,
    /// While a job is in quarantine, nothing is leased.
    pub quarantine: Quarantine,
    /// While the handlers' runtime is stalled, nothing is leased.
    pub stall: Stall,
}

impl NewlyActive {
    /// Fetches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(shard)) = stop.run_until_cancelled(self.notices.recv()).await {
            // Leave the job to another worker, which may have a free slot.
            if !self.slots.are_soon_free() {
                continue;
            }
            let Some(permit) = stop.run_until_cancelled(Arc::clone(&self.reserved_permits).acquire_owned()).await
            else {
                return;
            };
            let permit = permit.expect("the semaphore of the reserved permits is never closed");
            if stop.run_until_cancelled(self.stall.over()).await.is_none() {
                return;
            }
            let Some(_door) = stop.run_until_cancelled(self.quarantine.none_under_way()).await else { return };
            match self.fetch(&shard).await {
                Ok(mut fetched) => {
                    if let Some(lease) = fetched.leases.pop() {
                        self.desk.dispatch(vec![(lease, self.usages.place(&shard, permit))]).await;
                    }
                }
                Err(error) => tracing::debug!(source = %shard, %error, "could not fetch a newly active tenant's job"),
            }
        }
    }

    /// A tenant that is newly active in the queue may have running jobs. Where slots often become
    /// free, fetch the next job in fair order; elsewhere only a job of a tenant without running
    /// jobs, since any other job would wait for a slot.
    async fn fetch(&self, shard: &Shard) -> Result<Fetched, FetchError> {
        let fetched = self.consumer.fetch_from(&[(shard, 1)], Welcome::NewlyActive).await.remove(0)?;
        if fetched.taken > 0 || self.slots.reserved_for_newly_active() > 0 {
            return Ok(fetched);
        }
        self.consumer.fetch(shard, 1).await
    }
}
