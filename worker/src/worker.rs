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
    queue::{Index, dispatch::Consumer, index::eviction, ledger::webhooks::Watchers, repair::shard_agreement},
};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::{
        budget::FetchBudget,
        handler_runtime::HandlerRuntime,
        start_cost::{RunningTime, StartMeter},
    },
    fetch, heartbeat,
    lease::{held_leases::HeldLeases, quarantine::Quarantine, renewer},
    metrics,
    process::{Process, WorkerSettings},
    run::{completer::Completer, executor::Executor, handlers::Handlers, runtime},
};

/// Time after the grace period for cancelled runs to stop and for their outcomes to be written, for
/// example while PostgreSQL is unavailable.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

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
    let (background, fetched, watchers) = (CancellationToken::new(), CancellationToken::new(), Watchers::default());
    let (running, id) = (RunningTime::new(), ids::new_id(&environment.clock));
    let process = process(settings, index, &environment, handlers, stop);
    let Process { settings, index, held_leases, stop, .. } = &process;
    let (completer, written) = Completer::start(&system, index.clone(), watchers.clone(), held_leases.clone());
    watch(&process, &background);
    tokio::spawn(watchers.refresh(system.clone(), background.clone()));
    let consumer = Consumer::new(system.clone(), index.clone(), settings.lease);
    let mut ending = JoinSet::new();
    ending.spawn(renewer::renew(consumer.clone(), held_leases.clone(), settings.lease, background.clone()));
    ending.spawn(renewer::check(consumer.clone(), held_leases.clone(), background.clone()));
    // The heartbeat removes the ready marks when it ends, so it ends after the last fetch.
    let heartbeat = heartbeat::beat(index.clone(), settings.queues.clone(), id, settings.slots, fetched.clone());
    let heartbeat = tokio::spawn(heartbeat);
    let starts = StartMeter::new(settings.slots, running.clone(), index.start_cost().clone());
    let (jobs, fetching) = fetch::start(&process, &consumer, starts, id, fetched.clone().drop_guard(), &background);
    let executor = Arc::new(Executor {
        process: process.clone(),
        handlers: Handlers::new(registry, Arc::new(environment), running),
        control: Handle::current(),
        completer: Arc::clone(&completer),
        system,
    });
    let last_moment = last_moment(stop, settings.grace + LAST_PATIENCE);
    let run = runtime::run(executor, jobs, fetched.cancelled_owned(), settings.grace);
    let ran = in_time(last_moment.run_until_cancelled(run).await, "some runs did not stop in time");
    completer.close();
    ran.transpose()?;
    // Do not wait forever for a store that does not answer.
    let rest = async {
        heartbeat.await?;
        written.await?;
        background.cancel();
        fetching.await?;
        ending.join_all().await;
        anyhow::Ok(())
    };
    let rest = last_moment.run_until_cancelled(rest).await;
    background.cancel();
    in_time(rest, "some outcomes could not be written in time").unwrap_or(Ok(()))
}

fn process(
    settings: WorkerSettings,
    index: Index,
    environment: &Environment,
    handlers: HandlerRuntime,
    stop: CancellationToken,
) -> Process {
    let budget = FetchBudget::new(settings.slots);
    Process {
        slots: budget.slots(),
        budget: Arc::new(budget),
        settings: Arc::new(settings),
        index,
        clock: environment.clock.clone(),
        held_leases: HeldLeases::default(),
        quarantine: Quarantine::new(),
        handlers,
        stop,
    }
}

/// Reports on the process and its surroundings, until `background` is cancelled.
fn watch(process: &Process, background: &CancellationToken) {
    let Process { settings, index, slots, handlers, .. } = process;
    tokio::spawn(eviction::warn(index.clone(), background.clone()));
    tokio::spawn(shard_agreement::watch(index.clone(), settings.queues.clone(), background.clone()));
    tokio::spawn(handlers.clone().watch(background.clone()));
    tokio::spawn(metrics::report_slots(slots.clone(), background.clone()));
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
