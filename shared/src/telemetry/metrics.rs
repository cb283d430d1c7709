//! Starts the collection of metrics and describes every one of them.
//!
//! Invariant: every histogram has the buckets below, as one without buckets silently becomes a summary, which cannot
//! be added up over processes. Gauges that nobody sets for [`GAUGE_IDLE`] are dropped, so that a queue or a leader
//! that is gone stops being reported: set a gauge on every tick, not only when it changes.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio_util::sync::CancellationToken;

use super::names;

/// Upper bounds in seconds, from 1 ms (an index call) to 10 min (a long job).
const BUCKETS_SECONDS: [f64; 18] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// A gauge not set for this long is dropped.
pub const GAUGE_IDLE: Duration = Duration::from_mins(1);

/// How often samples are folded into buckets; without it an unscraped process grows.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder of this process. A second call in one process is an error.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

/// Keeps the metrics in shape until `stop`; spawn it beside the server that renders them.
pub async fn run_upkeep(handle: PrometheusHandle, version: &'static str, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        gauge!(names::BUILD_INFO, names::label::VERSION => version).set(1.0);
        handle.run_upkeep();
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS)?;
    Ok(builder.idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE)))
}

fn describe() {
    describe_gauge!(names::QUEUE_DEPTH, "Jobs by queue and state, from the leading scheduler.");
    describe_gauge!(names::QUEUE_OLDEST_AGE_SECONDS, Unit::Seconds, "Age of the oldest available job of a queue.");
    describe_histogram!(names::JOB_WAIT_SECONDS, Unit::Seconds, "From a job being due to its start.");
    describe_histogram!(names::JOB_DURATION_SECONDS, Unit::Seconds, "Run time of one attempt.");
    describe_counter!(names::JOBS_TOTAL, "Attempts that ended, by outcome.");
    describe_counter!(names::JOBS_LEFT_TOTAL, "Jobs left to a worker of another release, by reason.");
    describe_counter!(names::JOBS_RESCUED_TOTAL, "Jobs taken from workers that fell silent.");
    describe_gauge!(names::WORKER_SLOTS, "Slots of this worker, busy and free.");
    describe_counter!(names::ENQUEUE_REJECTED_TOTAL, "Jobs not accepted, by reason.");
    describe_histogram!(names::SCHEDULE_LAG_SECONDS, Unit::Seconds, "From a fire time to its job's insert.");
    describe_counter!(names::HTTP_REQUESTS_TOTAL, "Requests answered, by route and status.");
    describe_counter!(names::HTTP_FLOODS_TOTAL, "Connections ended for a flood of HTTP/2 control frames.");
    describe_histogram!(names::HTTP_REQUEST_DURATION_SECONDS, Unit::Seconds, "From request to head of the answer.");
    describe_gauge!(names::BUILD_INFO, "Always 1; the label says which release runs.");
    describe_histogram!(names::INDEX_REBUILD_SECONDS, Unit::Seconds, "One rebuild of the Redis index.");
    describe_counter!(names::INDEX_SWEPT_TOTAL, "Jobs that still waited when the sweep pushed them again.");
    describe_counter!(names::INDEX_DRIFT_TOTAL, "Invariants of the Redis index that were repaired.");
    describe_counter!(names::WEBHOOK_DELIVERIES_TOTAL, "Attempts to deliver a webhook, by outcome.");
    describe_gauge!(names::EVENT_STREAMS, "Open streams of job events.");
    describe_gauge!(names::SCHEDULER_LEADER, "1 in the scheduler that leads, 0 in the others.");
    describe_gauge!(names::COMPUTE_WAITING, "Computations that tenants control and that wait for a thread.");
    describe_histogram!(names::COMPUTE_WAIT_SECONDS, Unit::Seconds, "Wait of a computation for a thread, by task.");
    describe_histogram!(names::COMPUTE_DURATION_SECONDS, Unit::Seconds, "Run time of a computation, by task.");
    describe_counter!(names::COMPUTE_REFUSED_TOTAL, "Computations refused because too many of their tenant waited.");
    // An alert on a counter needs its zero: it must exist before the first event.
    counter!(names::INDEX_SWEPT_TOTAL).increment(0);
    counter!(names::JOBS_RESCUED_TOTAL).increment(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_come_out_described_and_in_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::histogram!(names::JOB_WAIT_SECONDS, names::label::QUEUE => "email").record(0.002);
            counter!(names::JOBS_TOTAL, names::label::OUTCOME => "completed").increment(2);
        });
        let text = handle.render();
        for line in [
            "# TYPE rota_job_wait_seconds histogram",
            r#"rota_job_wait_seconds_bucket{queue="email",le="0.001"} 0"#,
            r#"rota_job_wait_seconds_bucket{queue="email",le="0.0025"} 1"#,
            r#"rota_jobs_total{outcome="completed"} 2"#,
            "# HELP rota_jobs_total Attempts that ended, by outcome.",
            "rota_index_swept_total 0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
