//! Saying that this process serves its queues, so that a waiting job can tell whether anybody would run it.
//!
//! Invariant: a worker that serves a queue is never silent for as long as it is counted on
//! (`shared::queue::WORKER_SILENCE`), and one that stops fetching says so at once.

use std::time::Duration;

use shared::queue::{Index, QueueName};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const INTERVAL: Duration = Duration::from_secs(1);

/// Beats until `stop`.
pub async fn beat(index: Index, queues: Vec<QueueName>, process: Uuid, slots: usize, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for queue in &queues {
            if let Err(error) = index.beat(queue, process, slots).await {
                tracing::debug!(%queue, %error, "the index was not told that this worker serves the queue");
            }
        }
    }
    for queue in &queues {
        if let Err(error) = index.leave(queue, process, slots).await {
            tracing::debug!(%queue, %error, "the index was not told that this worker leaves; its silence will tell");
        }
    }
}
