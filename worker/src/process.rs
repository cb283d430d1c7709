//! Starts and stops the worker's tasks in order.
//!
//! Invariant: after a stop, no more jobs are leased, jobs that have not started are released at
//! once, and running jobs get the grace period to finish. The process exits when every outcome is
//! written or the grace period plus [`LAST_PATIENCE`] is over.

use std::{sync::Arc, time::Duration};

use jobs::{environment::Environment, registry::Registry};
use shared::{
    db::SystemDb,
    ids,
    queue::{
        Index, Notices, QueueName, Shard, dispatch::Consumer, index::eviction, ledger::webhooks::Watchers,
        repair::shard_agreement,
    },
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    capacity::Capacity,
    fetcher::{Desk, Fetcher},
    finisher::Finisher,
    grants::Grants,
    handlers::{HandlerRuntime, Handlers},
    heartbeat,
    held_leases::HeldLeases,
    listener::{self, Wake},
    metrics,
    newly_active::{self, NewlyActive},
    quarantine::Quarantine,
    renewer,
    runner::Runner,
    runtime,
    sources::Sources,
    start_cost::{RunningTime, StartMeter},
};

/// Time after the grace period for cancelled runs to stop and for their outcomes to be written, for
/// example while PostgreSQL is unavailable.
const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// Fetches whose jobs may be queued on the way to the slots.
const DISPATCHED: usize = 64;

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

/// Runs a worker until `stop`, and returns when every leased job is finished or released.
///
/// Call it on the control runtime: the connections of `system` and `index` belong to that runtime.
/// Only handlers run on the handlers' runtime, with `environment`.
pub async fn work(
    settings: WorkerSettings,
    system: SystemDb,
    index: Index,
    registry: Arc<Registry>,
    environment: Environment,
    handlers: HandlerRuntime,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (held_leases, watchers) = (HeldLeases::default(), Watchers::default());
    let background = CancellationToken::new();
    let (finisher, written) = Finisher::start(&system, index.clone(), watchers.clone(), held_leases.clone());
    tokio::spawn(watchers.refresh(system.clone(), background.clone()));
    let consumer = Consumer::new(system.clone(), index.clone(), settings.lease);
    let renewal =
        tokio::spawn(renewer::renew(consumer.clone(), held_leases.clone(), settings.lease, background.clone()));
    let sources: Vec<Shard> = settings.queues.iter().flat_map(|queue| index.shards(queue)).collect();
    watch_index(&index, &settings, &background);
    let wake = Arc::new(Wake::new(&sources));
    let process = ids::new_id(&environment.clock);
    let (notices, subscription) = Notices::listen(&index, sources.clone(), process, background.clone());
    let ((newly_active, newly_active_notices), (grant, granted)) =
        (mpsc::channel(newly_active::NOTICES), mpsc::unbounded_channel());
    tokio::spawn(listener::listen(notices, Arc::clone(&wake), newly_active, grant, held_leases.clone()));

    let capacity = Arc::new(Capacity::new(settings.slots));
    let slots = capacity.slots();
    let running = RunningTime::new();
    let starts = StartMeter::new(settings.slots, running.clone(), index.start_cost().clone());
    let quarantine = Quarantine::new();
    let (dispatches, receiver) = mpsc::channel(DISPATCHED);
    let desk = Desk { held_leases: held_leases.clone(), dispatches, clock: environment.clock.clone() };
    let checking = tokio::spawn(renewer::check(consumer.clone(), held_leases.clone(), background.clone()));
    let sources = Sources::new(sources, settings.slots, Arc::clone(&wake));
    let reserved_permits = Arc::new(Semaphore::new(newly_active::RESERVED_PERMITS));
    let grants = Grants {
        consumer: consumer.clone(),
        granted,
        capacity: Arc::clone(&capacity),
        reserved_permits: Arc::clone(&reserved_permits),
        usages: sources.usages(),
        desk: desk.clone(),
        wake,
        quarantine: quarantine.clone(),
        stall: handlers.stall.clone(),
    };
    let newly_active = NewlyActive {
        consumer: consumer.clone(),
        notices: newly_active_notices,
        reserved_permits: Arc::clone(&reserved_permits),
        slots: slots.clone(),
        usages: sources.usages(),
        desk: desk.clone(),
        quarantine: quarantine.clone(),
        stall: handlers.stall.clone(),
    };
    let fetcher = Fetcher {
        consumer: consumer.offering(subscription),
        sources,
        capacity: Arc::clone(&capacity),
        reserved_permits,
        slots: slots.clone(),
        desk,
        quarantine: quarantine.clone(),
        stall: handlers.stall.clone(),
        starts,
    };
    let fetched = CancellationToken::new();
    // The heartbeat removes the ready marks when it ends, so it ends after the last fetch.
    let beating =
        tokio::spawn(heartbeat::beat(index.clone(), settings.queues.clone(), process, settings.slots, fetched.clone()));
    let fetching = tokio::spawn(fetch(fetcher, newly_active, grants, stop.clone(), fetched.clone().drop_guard()));
    tokio::spawn(handlers.stall.clone().watch(handlers.handle.clone(), background.clone()));
    let runner = Arc::new(Runner {
        handlers: Handlers::new(registry, Arc::new(environment), running),
        runtime: handlers,
        control: Handle::current(),
        slots,
        capacity,
        held_leases,
        finisher,
        quarantine,
        system,
        index,
        stop: stop.clone(),
    });
    tokio::spawn(metrics::report_slots(runner.slots.clone(), background.clone()));
    let last_moment = last_moment(&stop, settings.grace + LAST_PATIENCE);
    let run = runtime::run(runner, receiver, fetched.cancelled_owned(), settings.grace);
    if let Some(ran) = in_time(last_moment.run_until_cancelled(run).await, "some runs did not stop in time") {
        ran?;
    }
    // Do not wait forever for a store that does not answer.
    let rest = async {
        beating.await?;
        written.await?;
        background.cancel();
        fetching.await?;
        renewal.await?;
        checking.await
    };
    if let Some(ended) =
        in_time(last_moment.run_until_cancelled(rest).await, "some outcomes could not be written in time")
    {
        ended?;
    }
    background.cancel();
    Ok(())
}

/// Leases jobs until `stop`: by polling, for newly active tenants, and by direct dispatch. Then
/// drops `fetched` and releases jobs that are still dispatched for earlier ready marks.
async fn fetch(
    fetcher: Fetcher,
    newly_active: NewlyActive,
    mut grants: Grants,
    stop: CancellationToken,
    fetched: DropGuard,
) {
    tokio::join!(fetcher.run(stop.clone()), newly_active.run(stop.clone()), grants.run(stop));
    drop(fetched);
    grants.refuse_rest().await;
}

/// Warns if Redis may evict keys or the shard counts differ, until `background` is cancelled.
fn watch_index(index: &Index, settings: &WorkerSettings, background: &CancellationToken) {
    tokio::spawn(eviction::warn(index.clone(), background.clone()));
    tokio::spawn(shard_agreement::watch(index.clone(), settings.queues.clone(), background.clone()));
}

/// Returns the outcome; logs a warning if the deadline came first.
fn in_time<T>(outcome: Option<T>, otherwise: &'static str) -> Option<T> {
    if outcome.is_none() {
        tracing::warn!("{otherwise}; their leases will expire and the jobs will be rescued");
    }
    outcome
}

/// Returns a token that is cancelled `patience` after `stop`.
fn last_moment(stop: &CancellationToken, patience: Duration) -> CancellationToken {
    let (stop, last_moment) = (stop.clone(), CancellationToken::new());
    let cancelled = last_moment.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        sleep(patience).await;
        cancelled.cancel();
    });
    last_moment
}
