//! Announces the queues that this process serves, so that the index knows whether a worker would
//! run a waiting job.
//!
//! Invariant: a worker sends a heartbeat for each of its queues more often than
//! `shared::queue::WORKER_SILENCE`, after which it no longer counts, and removes itself as soon as
//! it stops fetching.

use std::time::Duration;

use shared::queue::{Index, QueueName};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const INTERVAL: Duration = Duration::from_secs(1);

/// Sends heartbeats until `stop`.
pub async fn beat(index: Index, queues: Vec<QueueName>, process: Uuid, slots: usize, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for queue in &queues {
            if let Err(error) = index.beat(queue, process, slots).await {
                tracing::debug!(%queue, %error, "heartbeat failed");
            }
        }
    }
    for queue in &queues {
        if let Err(error) = index.leave(queue, process, slots).await {
            tracing::debug!(%queue, %error, "could not unregister from the queue; the heartbeat will expire");
        }
    }
}
