//! Taking what the index hands out unasked: a fetch that brings fewer jobs than there are places for offers to take another, one that
//! brings all a newcomer's, and the script that brings such a job leases it at once.
//!
//! Invariant: a job for which there is no place, or no time, is given back at once; nobody else sees it until its lease ends.

use std::sync::Arc;

use shared::queue::{Grant, Shard, consumer::Consumer};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::yield_now,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Capacity, fetcher::Desk, last_chance::LastChances, listener::Wake, places::Usages, stall::Stall,
};

/// Read from the ledger at once.
const AT_ONCE: usize = 32;

/// Takes what is granted.
pub struct Grants {
    /// Asks the ledger.
    pub consumer: Consumer,
    /// What was granted. There is one for each offer at the most, hence no more than were fetched.
    pub granted: mpsc::UnboundedReceiver<(Shard, Grant)>,
    /// How much may be held.
    pub capacity: Arc<Capacity>,
    /// Places beyond those, shared with the newcomers.
    pub guests: Arc<Semaphore>,
    /// Counts what each source holds.
    pub usages: Usages,
    /// Where leases are entered and sent on.
    pub desk: Desk,
    /// Has the source asked again, which makes the next offer.
    pub wake: Arc<Wake>,
    /// While one is under way nothing is taken.
    pub last_chances: LastChances,
    /// While it lasts nothing is leased either.
    pub stall: Stall,
}

impl Grants {
    /// Takes what is granted until `stop`.
    pub async fn run(&mut self, stop: CancellationToken) {
        let mut grants = Vec::with_capacity(AT_ONCE);
        while let Some(1..) = stop.run_until_cancelled(self.granted.recv_many(&mut grants, AT_ONCE)).await {
            self.take(std::mem::take(&mut grants)).await;
        }
        self.refuse(grants).await;
    }

    /// Gives back what comes of offers that were made before the stop, until no more is heard.
    pub async fn refuse_rest(mut self) {
        while let Some(grant) = self.granted.recv().await {
            self.refuse([grant]).await;
        }
    }

    async fn take(&self, grants: Vec<(Shard, Grant)>) {
        let Some(_door) = self.last_chances.none_now().filter(|_| !self.stall.is_on()) else {
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
                Err(error) => tracing::debug!(source = %shard, %error, "a granted job could not be taken"),
            }
        }
        // They begin first.
        yield_now().await;
        for (shard, _) in taken {
            self.wake.up(Some(&shard));
        }
    }

    /// The fetcher leaves no place free while all slots are busy.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.capacity.place_now().or_else(|| Arc::clone(&self.guests).try_acquire_owned().ok())
    }

    async fn refuse(&self, grants: impl IntoIterator<Item = (Shard, Grant)>) {
        for (shard, grant) in grants {
            if let Err(error) = self.consumer.refuse(&shard, &grant).await {
                tracing::debug!(source = %shard, %error, "a granted job could not be given back; its lease will run out");
            }
        }
    }
}
