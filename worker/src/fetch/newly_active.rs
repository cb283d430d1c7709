//! Fetches the first job of a newly active tenant outside of the fetch loop, in case no ready mark
//! exists to dispatch it directly (see `fetch/direct_dispatch.rs`).
//!
//! Invariant: these jobs are held on reserved permits. They need a slot like all jobs; only their
//! fetch is faster, because it waits neither for the current fetch round nor for permits that other
//! jobs hold.

use shared::queue::{
    FetchScope, Shard, StoreError,
    dispatch::{Consumer, Fetched},
};
use tokio::sync::mpsc;

use super::intake::Intake;
use crate::process::Process;

/// Capacity of the notification channel. The fetch loop finds the jobs of dropped notifications.
pub(super) const NOTICES: usize = 16;

/// Leases the first jobs of newly active tenants.
pub(super) struct NewlyActive {
    pub process: Process,
    pub consumer: Consumer,
    /// Shards with a newly active tenant.
    pub notices: mpsc::Receiver<Shard>,
    pub intake: Intake,
}

impl NewlyActive {
    /// Fetches until the process stops.
    pub async fn run(mut self) {
        let process = self.process.clone();
        while let Some(Some(shard)) = process.stop.run_until_cancelled(self.notices.recv()).await {
            // Leave the job to another worker, which may have a free slot.
            if !process.slots.are_soon_free() {
                continue;
            }
            let Some(permit) = process.stop.run_until_cancelled(process.budget.reserved()).await else { return };
            let Some(_may_lease) = process.may_lease().await else { return };
            match self.fetch(&shard).await {
                Ok(fetched) => self.intake.accept(fetched.leases, std::iter::once(permit)).await,
                Err(error) => tracing::debug!(%shard, %error, "could not fetch a newly active tenant's job"),
            }
        }
    }

    /// A tenant that is newly active in the queue may have running jobs. Where slots often become
    /// free, fetch the next job in fair order; elsewhere only a job of a tenant without running
    /// jobs, since any other job would wait for a slot.
    async fn fetch(&self, shard: &Shard) -> Result<Fetched, StoreError> {
        let fetched = self.consumer.fetch_from(&[(shard, 1)], FetchScope::NewlyActive).await.remove(0)?;
        if fetched.taken > 0 || self.process.slots.reserved_for_newly_active() > 0 {
            return Ok(fetched);
        }
        self.consumer.fetch(shard, 1).await
    }
}
