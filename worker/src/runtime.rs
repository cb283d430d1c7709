//! The one place that knows apalis: it drives the runs, counts what is in flight, and ends when all has ended.
//!
//! Invariant: the [`Backend`] is just the receiving end of a channel and never returns an error, because an error ends an
//! apalis worker. Fetching, renewing and finishing are tasks of their own; see `docs/decisions/0001` for why the stock Redis
//! storage is not used.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use apalis::{
    layers::catch_panic::CatchPanicLayer,
    prelude::{Backend, Identity, Monitor, MonitorError, Task, WorkerBuilder, WorkerContext},
};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use shared::tenancy::TenantId;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{capacity::Capacity, fetcher::Dispatch, runner::Runner, slots::Slot};

/// Runs what arrives until `stop` and until `fetched` says that no more comes; then hands back what has not begun, and waits up to
/// `grace` for what has.
/// Runs that are still going after that are cancelled and handed back too.
pub async fn run(
    runner: Arc<Runner>,
    capacity: Arc<Capacity>,
    dispatches: mpsc::Receiver<Dispatch>,
    stop: CancellationToken,
    fetched: impl Future<Output = ()> + Send,
    grace: Duration,
) -> Result<(), MonitorError> {
    let source = Arc::new(Mutex::new(dispatches));
    let monitor = {
        let (runner, stop) = (Arc::clone(&runner), stop.clone());
        Monitor::new().register(move |_restarts| {
            let (runner, capacity, stop) = (Arc::clone(&runner), Arc::clone(&capacity), stop.clone());
            WorkerBuilder::new("rota")
                .backend(Dispatches { receiver: Arc::clone(&source) })
                .layer(CatchPanicLayer::new())
                .build(move |dispatch: Dispatch| {
                    handle(Arc::clone(&runner), Arc::clone(&capacity), stop.clone(), dispatch)
                })
        })
    };
    let signal = async {
        stop.cancelled().await;
        // What is being leased at this moment still comes.
        let quiet = async {
            fetched.await;
            idle(&runner).await;
        };
        if timeout(grace, quiet).await.is_err() {
            tracing::warn!(jobs = runner.holdings().len(), "jobs still run after the grace; they are handed back");
            runner.holdings().cancel_all();
        }
        Ok(())
    };
    monitor.run_with_signal(signal).await
}

/// A job that was fetched ahead and has waited this long for a slot is given back: jobs turned out longer than they were, and
/// another worker may be idle.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Only the handler is a task of its own, on the handlers' runtime. A job that was fetched ahead waits here for its slot, and is handed back if
/// the process stops first, it must be left to a last chance, or no handler gets on.
async fn handle(runner: Arc<Runner>, capacity: Arc<Capacity>, stop: CancellationToken, dispatch: Dispatch) {
    let Dispatch { lease, cancelled, place } = dispatch;
    match slot(&runner, &capacity, &stop, lease.tenant).await {
        Some(slot) => {
            if let Some(ran) = runner.run(lease, cancelled, slot).await {
                capacity.observe(ran);
                place.observe(ran);
            }
        }
        None => runner.hand_back(lease).await,
    }
}

/// `None` if the job is not to begin here.
async fn slot(runner: &Runner, capacity: &Capacity, stop: &CancellationToken, tenant: TenantId) -> Option<Slot> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        slot = capacity.slot(tenant) => Some(slot),
        () = runner.last_chances().announced() => None,
        () = runner.handlers().stall().begun() => None,
        () = tokio::time::sleep(LONGEST_WAIT) => {
            capacity.observe_wait(LONGEST_WAIT);
            None
        }
    }
}

async fn idle(runner: &Runner) {
    while !runner.holdings().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Dispatches {
    receiver: Arc<Mutex<mpsc::Receiver<Dispatch>>>,
}

impl Backend for Dispatches {
    type Task = Task<Dispatch>;
    type Error = Infallible;

    fn poll_ready(&mut self, _cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.poll_recv(cx).map(|dispatch| dispatch.map(|dispatch| Ok(Task::new(dispatch))))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Dispatches {
    type Args = Dispatch;
    type Id = Uuid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _worker: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
