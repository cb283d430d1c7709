//! Getting the first job of a tenant that comes new to a busy queue, beside the fetcher's rounds, where no offer stood by which it would
//! have been granted (see [`crate::grants`]).
//!
//! Invariant: at most [`GUESTS`] jobs are held for that, beyond the places. They take slots like all others; only the way there is shorter,
//! because neither a round under way nor places that others hold are waited for.

use std::sync::Arc;

use shared::queue::{
    Shard, Welcome,
    consumer::{Consumer, FetchError, Fetched},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    fetcher::{Desk, Dispatch},
    last_chance::LastChances,
    places::Usages,
    slots::Slots,
    stall::Stall,
};

/// How many jobs are held beyond the places, here and by [`crate::grants`].
pub const GUESTS: usize = 2;
/// More notices than these are left to the fetcher's rounds.
pub const NOTICES: usize = 16;

/// Leases the jobs of newcomers.
pub struct Newcomers {
    /// Asks index and ledger.
    pub consumer: Consumer,
    /// Where somebody is new.
    pub notices: mpsc::Receiver<Shard>,
    /// Places beyond the fetcher's, at most [`GUESTS`].
    pub guests: Arc<Semaphore>,
    /// Tell for whom they are.
    pub slots: Slots<Dispatch>,
    /// Counts what each source holds.
    pub usages: Usages,
    /// Where leases are entered and sent on.
    pub desk: Desk,
    /// While one is under way nothing is leased.
    pub last_chances: LastChances,
    /// While it lasts nothing is leased either.
    pub stall: Stall,
}

impl Newcomers {
    /// Fetches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(shard)) = stop.run_until_cancelled(self.notices.recv()).await {
            // Another worker may have a slot.
            if !self.slots.are_soon_free() {
                continue;
            }
            let Some(permit) = stop.run_until_cancelled(Arc::clone(&self.guests).acquire_owned()).await else { return };
            let permit = permit.expect("the guests' places stay open as long as this");
            if stop.run_until_cancelled(self.stall.over()).await.is_none() {
                return;
            }
            let Some(_door) = stop.run_until_cancelled(self.last_chances.none_under_way()).await else { return };
            match self.fetch(&shard).await {
                Ok(mut fetched) => {
                    if let Some(lease) = fetched.leases.pop() {
                        self.desk.dispatch(vec![(lease, self.usages.place(&shard, permit))]).await;
                    }
                }
                Err(error) => tracing::debug!(source = %shard, %error, "a newcomer's job could not be fetched"),
            }
        }
    }

    /// Who is new in the queue may have something running. Where slots often come free it is fetched like whoever is next; elsewhere a job that
    /// is no newcomer's would only wait there.
    async fn fetch(&self, shard: &Shard) -> Result<Fetched, FetchError> {
        let fetched = self.consumer.fetch_from(&[(shard, 1)], Welcome::Newcomers).await.remove(0)?;
        if fetched.taken > 0 || self.slots.left_to_newcomers() > 0 {
            return Ok(fetched);
        }
        self.consumer.fetch(shard, 1).await
    }
}
