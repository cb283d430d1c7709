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

use super::executor::Executor;
use crate::{fetch::in_flight::InFlight, lease::held_leases::HeldLeases, process::Process};

/// How often a stopping process checks whether its runs have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Starts the received jobs until the process stops and `fetched` completes, then waits up to
/// `grace` for the running jobs. Runs that are still active after that are cancelled, and released
/// if they stop.
pub(crate) async fn run(
    executor: Arc<Executor>,
    jobs: mpsc::Receiver<Vec<InFlight>>,
    fetched: impl Future<Output = ()> + Send,
    grace: Duration,
) -> Result<(), MonitorError> {
    let source = Arc::new(Mutex::new(jobs));
    let monitor = {
        let executor = Arc::clone(&executor);
        Monitor::new().register(move |_restarts| {
            let executor = Arc::clone(&executor);
            WorkerBuilder::new("rota")
                .backend(Jobs { receiver: Arc::clone(&source) })
                .layer(CatchPanicLayer::new())
                .build(move |jobs: Vec<InFlight>| {
                    let executor = Arc::clone(&executor);
                    async move { executor.start(jobs) }
                })
        })
    };
    let Process { held_leases, stop, .. } = &executor.process;
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
        () = executor.fill_slots() => Ok(()),
        () = executor.release_unstarted() => Ok(()),
    }
}

async fn becomes(held_leases: &HeldLeases, is_so: fn(&HeldLeases) -> bool) {
    while !is_so(held_leases) {
        sleep(LOOK_INTERVAL).await;
    }
}

struct Jobs {
    receiver: Arc<Mutex<mpsc::Receiver<Vec<InFlight>>>>,
}

impl Backend for Jobs {
    type Task = Task<Vec<InFlight>>;
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
        receiver.poll_recv(cx).map(|jobs| jobs.map(|jobs| Ok(Task::new(jobs))))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Jobs {
    type Args = Vec<InFlight>;
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
