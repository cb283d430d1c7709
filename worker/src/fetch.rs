//! Leases jobs: by polling, for newly active tenants, and by direct dispatch.
//!
//! Invariant: every leased job holds a permit, and enters the process through [`intake`].

mod direct_dispatch;
mod fetcher;
pub mod in_flight;
mod intake;
mod newly_active;
mod notifications;
pub mod permits;
mod queue_shares;

use std::sync::Arc;

use shared::queue::{Notices, Shard, dispatch::Consumer};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::{
    direct_dispatch::DirectDispatches, fetcher::Fetcher, in_flight::InFlight, intake::Intake,
    newly_active::NewlyActive, notifications::Notifications, queue_shares::QueueShares,
};
use crate::{capacity::start_cost::StartMeter, process::Process};

/// Starts the tasks that lease jobs until the process stops, and returns the jobs. `fetched` is
/// dropped when no more are leased. The handle completes when the jobs that were dispatched
/// meanwhile are released.
pub(crate) fn start(
    process: &Process,
    consumer: &Consumer,
    starts: StartMeter,
    id: Uuid,
    fetched: DropGuard,
    background: &CancellationToken,
) -> (mpsc::Receiver<Vec<InFlight>>, JoinHandle<()>) {
    let shards: Vec<Shard> = process.settings.queues.iter().flat_map(|queue| process.index.shards(queue)).collect();
    let (notices, subscription) = Notices::listen(&process.index, shards.clone(), id, background.clone());
    let (newly_active_sender, newly_active) = mpsc::channel(newly_active::NOTICES);
    let (dispatch_sender, dispatched) = mpsc::unbounded_channel();
    let notifications = Notifications::new(&shards);
    let shares = QueueShares::new(shards, process.settings.slots, Arc::clone(&notifications));
    let (intake, jobs) = Intake::new(process, shares.usages());
    let held_leases = process.held_leases.clone();
    tokio::spawn(Arc::clone(&notifications).listen(notices, newly_active_sender, dispatch_sender, held_leases));
    let newly_active = NewlyActive {
        process: process.clone(),
        consumer: consumer.clone(),
        notices: newly_active,
        intake: intake.clone(),
    };
    let mut dispatches = DirectDispatches {
        process: process.clone(),
        consumer: consumer.clone(),
        dispatched,
        intake: intake.clone(),
        notifications,
    };
    let consumer = consumer.clone().with_ready_marks(subscription);
    let fetcher = Fetcher { process: process.clone(), consumer, shares, intake, starts };
    let fetching = tokio::spawn(async move {
        tokio::join!(fetcher.run(), newly_active.run(), dispatches.run());
        drop(fetched);
        dispatches.release_rest().await;
    });
    (jobs, fetching)
}
