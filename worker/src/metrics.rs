//! What the worker tells Prometheus.

use std::time::Duration;

use metrics::{counter, histogram};
use shared::{
    queue::{consumer::Lease, finish::Outcome},
    telemetry::names,
};

/// A job was leased: how long it waited since it might have run.
pub fn started(lease: &Lease, waited: Duration) {
    histogram!(names::JOB_WAIT_SECONDS, "queue" => lease.queue.to_string()).record(waited.as_secs_f64());
}

/// A run ended.
pub fn ended(lease: &Lease, outcome: Option<&Outcome>, ran: Duration) {
    let queue = lease.queue.to_string();
    let outcome = outcome.map_or("handed_back", Outcome::as_str);
    histogram!(names::JOB_DURATION_SECONDS, "queue" => queue.clone(), "kind" => lease.kind.to_string())
        .record(ran.as_secs_f64());
    counter!(names::JOBS_TOTAL, "queue" => queue, "kind" => lease.kind.to_string(), "outcome" => outcome).increment(1);
}
