//! Telling operators that a process was given another number of shards than the leading scheduler.
//!
//! Invariant: it only tells, once for each disagreement. Nothing needs it to be right: shards of different numbers have different keys,
//! so such a process fetches nothing, and what it pushes the sweep finds in the ledger.

use std::{collections::HashMap, time::Duration};

use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::{Index, QueueName};

/// A leader with a new number needs a moment to have its way.
const INTERVAL: Duration = Duration::from_secs(5);

/// Compares until `stop`.
pub async fn watch(index: Index, queues: Vec<QueueName>, stop: CancellationToken) {
    let mut told = HashMap::new();
    let mut ticks = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for queue in &queues {
            compare(&index, queue, &mut told).await;
        }
    }
}

async fn compare(index: &Index, queue: &QueueName, told: &mut HashMap<QueueName, u16>) {
    let own = index.shard_count(queue);
    // While Redis is away, or empty, nobody says otherwise.
    let Ok(Some(built)) = index.built_shards(queue).await else { return };
    if built == own {
        if told.remove(queue).is_some() {
            tracing::info!(%queue, shards = own, "the queue is split as this process was told");
        }
    } else if told.insert(queue.clone(), built) != Some(built) {
        tracing::warn!(
            %queue,
            own_shards = own,
            leader_shards = built,
            "ROTA_QUEUE_SHARDS differs from the leading scheduler's: this process fetches nothing from the queue, and what it submits is \
             found late; give all processes the same and restart them"
        );
    }
}
