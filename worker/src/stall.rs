//! Whether handlers get on: a kind that blocks the threads of the handlers' runtime holds up the start of every other run there.
//!
//! Invariant: while no thread is left for a handler, this process leases nothing more, and what it has not started goes to other workers; leases,
//! heartbeat, finishing and health, which have a runtime of their own, go on.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often a task is put on the handlers' runtime to see whether it is run.
const INTERVAL: Duration = Duration::from_millis(100);
/// A runtime that does not begin a task within this time is stalled.
const PATIENCE: Duration = Duration::from_millis(250);

/// Tells whether the handlers' runtime is stalled. Cheap to clone.
#[derive(Clone)]
pub struct Stall {
    stalled: Arc<watch::Sender<bool>>,
}

impl Stall {
    /// It is not, as far as is known.
    pub fn new() -> Self {
        Self { stalled: Arc::new(watch::Sender::new(false)) }
    }

    /// Whether it is stalled now.
    pub fn is_on(&self) -> bool {
        *self.stalled.borrow()
    }

    /// Waits until it is stalled.
    pub async fn begun(&self) {
        self.becomes(true).await;
    }

    /// Waits until it is not stalled.
    pub async fn over(&self) {
        self.becomes(false).await;
    }

    async fn becomes(&self, stalled: bool) {
        if self.is_on() != stalled {
            // The sender lives as long as this does.
            let _ = self.stalled.subscribe().wait_for(|now| *now == stalled).await;
        }
    }

    /// Watches the handlers' runtime until `stop`; to be run on another one.
    pub async fn watch(self, handlers: Handle, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            let mut begun = handlers.spawn(async {});
            if timeout(PATIENCE, &mut begun).await.is_ok() {
                continue;
            }
            tracing::warn!("handlers block all threads of their runtime; nothing more is leased until one is free");
            self.stalled.send_replace(true);
            let ended = stop.run_until_cancelled(begun).await;
            self.stalled.send_replace(false);
            if ended.is_some() {
                tracing::info!("a thread is free for handlers again");
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
        timeout(Duration::from_secs(10), stall.begun()).await.expect("it is noticed");
        drop(release);
        timeout(Duration::from_secs(10), stall.over()).await.expect("it is over");
        stop.cancel();
        watching.await.expect("it ends");
        handlers.shutdown_background();
    }
}
