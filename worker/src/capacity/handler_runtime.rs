//! Detects a stall of the handlers' runtime: a kind that blocks its threads delays the start of
//! every other run.
//!
//! Invariant: while no thread is free for a handler, this process leases nothing more, and releases
//! the jobs that it has not started to other workers. Renewal, heartbeat, finishing and health
//! checks continue, because they have a runtime of their own.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often a probe task is spawned on the handlers' runtime.
const INTERVAL: Duration = Duration::from_millis(100);
/// A runtime that does not run the probe task within this time is stalled.
const PATIENCE: Duration = Duration::from_millis(250);

/// The runtime of the handlers. Cheap to clone.
#[derive(Clone)]
pub struct HandlerRuntime {
    /// The runtime. In tests it may be the control runtime.
    pub handle: Handle,
    stalled: Arc<watch::Sender<bool>>,
}

impl HandlerRuntime {
    /// Wraps the handle of a runtime that is not stalled.
    pub fn new(handle: Handle) -> Self {
        Self { handle, stalled: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether the runtime is stalled now.
    pub fn is_stalled(&self) -> bool {
        *self.stalled.borrow()
    }

    /// Waits until the runtime is stalled.
    pub async fn stalled(&self) {
        self.becomes(true).await;
    }

    /// Waits until the runtime is not stalled.
    pub async fn recovered(&self) {
        self.becomes(false).await;
    }

    async fn becomes(&self, stalled: bool) {
        if self.is_stalled() != stalled {
            // The sender lives as long as `self`.
            let _ = self.stalled.subscribe().wait_for(|now| *now == stalled).await;
        }
    }

    /// Watches for stalls until `stop`. Call it on another runtime.
    pub async fn watch(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            let mut probe = self.handle.spawn(async {});
            if timeout(PATIENCE, &mut probe).await.is_ok() {
                continue;
            }
            tracing::warn!("handlers block all threads of their runtime; leasing stops until a thread is free");
            self.stalled.send_replace(true);
            let ended = stop.run_until_cancelled(probe).await;
            self.stalled.send_replace(false);
            if ended.is_some() {
                tracing::info!("a thread is free for handlers again; leasing resumes");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_start_and_end_of_a_stall_are_detected() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (handlers, stop) = (HandlerRuntime::new(runtime.handle().clone()), CancellationToken::new());
        let watching = tokio::spawn(handlers.clone().watch(stop.clone()));
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move { blocked.recv() });
        timeout(Duration::from_secs(10), handlers.stalled()).await.expect("the stall is detected");
        drop(release);
        timeout(Duration::from_secs(10), handlers.recovered()).await.expect("the stall is over");
        stop.cancel();
        watching.await.expect("the watch ends");
        runtime.shutdown_background();
    }
}
