//! What the worker tells Prometheus.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge, histogram};
use shared::{
    queue::{consumer::Lease, finish::Outcome},
    telemetry::names::{self, label},
};
use tokio_util::sync::CancellationToken;

use crate::fetcher::Capacity;

/// How often the gauges are set; they are dropped when they are not set for a minute.
const INTERVAL: Duration = Duration::from_secs(2);
/// The slots of a process are shared by the queues it serves.
const ALL_QUEUES: &str = "all";

/// A job was leased: how long it waited since it might have run.
pub fn started(lease: &Lease, waited: Duration) {
    histogram!(names::JOB_WAIT_SECONDS, "queue" => lease.shard.queue().to_string()).record(waited.as_secs_f64());
}

/// A run ended.
pub fn ended(lease: &Lease, outcome: Option<&Outcome>, ran: Duration) {
    let queue = lease.shard.queue().to_string();
    let outcome = outcome.map_or("handed_back", Outcome::as_str);
    histogram!(names::JOB_DURATION_SECONDS, "queue" => queue.clone(), "kind" => lease.kind.to_string())
        .record(ran.as_secs_f64());
    counter!(names::JOBS_TOTAL, "queue" => queue, "kind" => lease.kind.to_string(), "outcome" => outcome).increment(1);
}

/// A job was left to a worker of another release.
pub fn left(lease: &Lease, reason: &'static str) {
    counter!(names::JOBS_LEFT_TOTAL, label::QUEUE => lease.shard.queue().to_string(), label::REASON => reason)
        .increment(1);
}

/// Tells how many slots are busy and free, until `stop`.
pub async fn report_slots(capacity: Arc<Capacity>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (busy, free) = capacity.busy_and_free();
        set_slots("busy", busy);
        set_slots("free", free);
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 slots")]
fn set_slots(state: &'static str, count: usize) {
    gauge!(names::WORKER_SLOTS, label::QUEUE => ALL_QUEUES, label::STATE => state).set(count as f64);
}
