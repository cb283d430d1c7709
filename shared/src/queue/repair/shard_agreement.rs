//! Warns operators when a process's shard counts differ from the leading scheduler's.
//!
//! Invariant: it only logs, once per disagreement. Correctness does not depend on it: shards of
//! different counts have different keys, so such a process fetches nothing, and the sweep finds the
//! jobs it submits in the ledger.

use std::{collections::HashMap, time::Duration};

use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::queue::{Index, QueueName};

/// Time for a leader with a new count to apply it.
const INTERVAL: Duration = Duration::from_secs(5);

/// Compares the counts until `stop`.
pub async fn watch(index: Index, queues: Vec<QueueName>, stop: CancellationToken) {
    let mut reported = HashMap::new();
    let mut ticks = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for queue in &queues {
            compare(&index, queue, &mut reported).await;
        }
    }
}

async fn compare(index: &Index, queue: &QueueName, reported: &mut HashMap<QueueName, u16>) {
    let own = index.shard_count(queue);
    // If Redis is unavailable or empty, there is no recorded count to compare with.
    let Ok(Some(built)) = index.built_shards(queue).await else { return };
    if built == own {
        if reported.remove(queue).is_some() {
            tracing::info!(%queue, shards = own, "the number of shards matches the leading scheduler's again");
        }
    } else if reported.insert(queue.clone(), built) != Some(built) {
        tracing::warn!(
            %queue,
            own_shards = own,
            leader_shards = built,
            "ROTA_QUEUE_SHARDS differs from the leading scheduler's: this process fetches nothing from the queue, and \
             jobs it submits start late; set the same value in all processes and restart them"
        );
    }
}
