//! The intake: the one way by which leased jobs enter the process.
//!
//! Invariant: a job is in the held leases, hence renewed, before it is passed on.

use std::{collections::HashMap, sync::Arc};

use shared::{
    clock::Clock,
    queue::{Lease, Shard},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    in_flight::InFlight,
    permits::{FetchPermit, ShareUsage},
};
use crate::{lease::held_leases::HeldLeases, process::Process};

/// Fetches whose jobs may be queued on the way to the slots.
const QUEUED: usize = 64;

/// Records leased jobs and passes them to the slots. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Intake {
    held_leases: HeldLeases,
    jobs: mpsc::Sender<Vec<InFlight>>,
    clock: Clock,
    /// The permit counts of the queue shares.
    usages: Arc<HashMap<Shard, Arc<ShareUsage>>>,
}

impl Intake {
    /// An intake, and the jobs that pass it.
    pub(super) fn new(
        process: &Process,
        usages: HashMap<Shard, Arc<ShareUsage>>,
    ) -> (Self, mpsc::Receiver<Vec<InFlight>>) {
        let (jobs, receiver) = mpsc::channel(QUEUED);
        let (held_leases, clock) = (process.held_leases.clone(), process.clock.clone());
        (Self { held_leases, jobs, clock, usages: Arc::new(usages) }, receiver)
    }

    /// Accepts leased jobs of one shard, each with a permit, in one message: a message costs the
    /// same for one job as for many.
    pub async fn accept(&self, leases: Vec<Lease>, mut permits: impl Iterator<Item = OwnedSemaphorePermit>) {
        if leases.is_empty() {
            return;
        }
        let share = self.usages.get(&leases[0].shard).expect("jobs are only leased from known shards");
        let leases: Vec<_> = leases.into_iter().map(Arc::new).collect();
        let (cancelled, now) = (self.held_leases.enter(&leases), self.clock.now());
        let jobs = leases.into_iter().zip(cancelled).map(|(lease, cancelled)| {
            crate::metrics::started(&lease, now.signed_duration_since(lease.run_at).to_std().unwrap_or_default());
            InFlight { lease, cancelled, permit: FetchPermit::taken(share, permits.next()) }
        });
        // The receiver is dropped only after all senders have stopped.
        let _ = self.jobs.send(jobs.collect()).await;
    }
}
