//! What the parts of one worker process share.

use std::{sync::Arc, time::Duration};

use shared::{
    clock::Clock,
    queue::{Index, QueueName},
};
use tokio::sync::RwLockReadGuard;
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::{budget::FetchBudget, handler_runtime::HandlerRuntime, slots::Slots},
    fetch::in_flight::InFlight,
    lease::{held_leases::HeldLeases, quarantine::Quarantine},
};

/// Settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Queues that the worker serves.
    pub queues: Vec<QueueName>,
    /// Number of jobs that run at the same time.
    pub slots: usize,
    /// Duration of a lease unless it is renewed.
    pub lease: Duration,
    /// How long running jobs may continue after a stop.
    pub grace: Duration,
}

/// State of one worker process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Process {
    pub settings: Arc<WorkerSettings>,
    pub index: Index,
    pub clock: Clock,
    pub held_leases: HeldLeases,
    pub budget: Arc<FetchBudget>,
    pub slots: Arc<Slots<InFlight>>,
    pub quarantine: Quarantine,
    pub handlers: HandlerRuntime,
    /// Once this is cancelled, nothing is leased, and jobs that have not started are released.
    pub stop: CancellationToken,
}

impl Process {
    /// Waits until jobs may be leased; `None` once the process stops. Hold the guard until the
    /// leased jobs are in the held leases: an exclusive run waits for it.
    pub async fn may_lease(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let may_lease = async {
            self.handlers.recovered().await;
            self.quarantine.none_under_way().await
        };
        self.stop.run_until_cancelled(may_lease).await
    }

    /// As [`Self::may_lease`], without waiting.
    pub fn may_lease_now(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.quarantine.none_now().filter(|_| !self.handlers.is_stalled() && !self.stop.is_cancelled())
    }

    /// Whether no run may start.
    pub fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.quarantine.is_announced() || self.handlers.is_stalled()
    }

    /// Waits until no run may start.
    pub async fn closed(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.quarantine.announced() => {}
            () = self.handlers.stalled() => {}
        }
    }
}
