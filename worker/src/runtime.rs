//! The only module that uses apalis: receives leased jobs, starts their runs, and returns when all
//! of them have ended.
//!
//! Invariant: the [`Backend`] is only the receiving end of a channel and never returns an error,
//! because an error ends an apalis worker. Fetching, renewing and finishing are separate tasks;
//! `docs/decisions/0001` explains why the stock Redis storage is not used.

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
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{fetcher::Dispatch, held_leases::HeldLeases, runner::Runner};

/// How often a stopping process checks whether its runs have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Starts the received jobs until the runner is stopped and `fetched` completes, then waits up to
/// `grace` for the running jobs. Runs that are still active after that are cancelled, and released
/// if they stop.
pub async fn run(
    runner: Arc<Runner>,
    dispatches: mpsc::Receiver<Vec<Dispatch>>,
    fetched: impl Future<Output = ()> + Send,
    grace: Duration,
) -> Result<(), MonitorError> {
    let source = Arc::new(Mutex::new(dispatches));
    let monitor = {
        let runner = Arc::clone(&runner);
        Monitor::new().register(move |_restarts| {
            let runner = Arc::clone(&runner);
            WorkerBuilder::new("rota")
                .backend(Dispatches { receiver: Arc::clone(&source) })
                .layer(CatchPanicLayer::new())
                .build(move |dispatches: Vec<Dispatch>| {
                    let runner = Arc::clone(&runner);
                    async move { runner.start(dispatches) }
                })
        })
    };
    let Runner { held_leases, stop, .. } = &*runner;
    let signal = async {
        stop.cancelled().await;
        // Jobs that are being leased at this moment still arrive.
        let quiet = async {
            fetched.await;
            becomes(held_leases, HeldLeases::is_empty).await;
        };
        if timeout(grace, quiet).await.is_err() {
            tracing::warn!(jobs = held_leases.len(), "cancelling jobs that are still running after the grace period");
            held_leases.cancel_all();
            becomes(held_leases, HeldLeases::is_over).await;
        }
        Ok(())
    };
    tokio::select! {
        ended = monitor.run_with_signal(signal) => ended,
        () = runner.fill_slots() => Ok(()),
        () = runner.release_unstarted() => Ok(()),
    }
}

async fn becomes(held_leases: &HeldLeases, is_so: fn(&HeldLeases) -> bool) {
    while !is_so(held_leases) {
        sleep(LOOK_INTERVAL).await;
    }
}

struct Dispatches {
    receiver: Arc<Mutex<mpsc::Receiver<Vec<Dispatch>>>>,
}

impl Backend for Dispatches {
    type Task = Task<Vec<Dispatch>>;
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
        receiver.poll_recv(cx).map(|dispatches| dispatches.map(|dispatches| Ok(Task::new(dispatches))))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Dispatches {
    type Args = Vec<Dispatch>;
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
