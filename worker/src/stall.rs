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

/// Whether the handlers' runtime is stalled. Cheap to clone.
#[derive(Clone)]
pub struct Stall {
    stalled: Arc<watch::Sender<bool>>,
}

impl Stall {
    /// Starts as not stalled.
    pub fn new() -> Self {
        Self { stalled: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether the runtime is stalled now.
    pub fn is_on(&self) -> bool {
        *self.stalled.borrow()
    }

    /// Waits until the runtime is stalled.
    pub async fn begun(&self) {
        self.becomes(true).await;
    }

    /// Waits until the runtime is not stalled.
    pub async fn over(&self) {
        self.becomes(false).await;
    }

    async fn becomes(&self, stalled: bool) {
        if self.is_on() != stalled {
            // The sender lives as long as `self`.
            let _ = self.stalled.subscribe().wait_for(|now| *now == stalled).await;
        }
    }

    /// Watches the handlers' runtime until `stop`. Call it on another runtime.
    pub async fn watch(self, handlers: Handle, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            let mut begun = handlers.spawn(async {});
            if timeout(PATIENCE, &mut begun).await.is_ok() {
                continue;
            }
            tracing::warn!("handlers block all threads of their runtime; leasing stops until a thread is free");
            self.stalled.send_replace(true);
            let ended = stop.run_until_cancelled(begun).await;
            self.stalled.send_replace(false);
            if ended.is_some() {
                tracing::info!("a thread is free for handlers again; leasing resumes");
            }
        }
    }
}

impl Default for Stall {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blocked_runtime_is_noticed_and_so_is_the_end_of_it() {
        let handlers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (stall, stop) = (Stall::new(), CancellationToken::new());
        let watching = tokio::spawn(stall.clone().watch(handlers.handle().clone(), stop.clone()));
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        handlers.spawn(async move { blocked.recv() });
        timeout(Duration::from_secs(10), stall.begun()).await.expect("the stall is detected");
        drop(release);
        timeout(Duration::from_secs(10), stall.over()).await.expect("the stall is over");
        stop.cancel();
        watching.await.expect("the watch ends");
        handlers.shutdown_background();
    }
}
