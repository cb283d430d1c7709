//! Installs the metrics recorder and describes every metric.
//!
//! Invariant: every histogram has the buckets below, because a histogram without buckets silently
//! becomes a summary, which cannot be added up over processes. A gauge that has not been set for
//! [`GAUGE_IDLE`] is dropped, so that a queue or a leader that is gone is no longer reported: set a
//! gauge on every tick, not only when it changes.

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

/// Installs the recorder of this process. A second call in the same process is an error.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

/// Runs the recorder's upkeep until `stop`; spawn it next to the server that renders the metrics.
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
    describe_histogram!(names::JOB_WAIT_SECONDS, Unit::Seconds, "Time from a job being due to its start.");
    describe_histogram!(names::JOB_DURATION_SECONDS, Unit::Seconds, "Run time of one attempt.");
    describe_counter!(names::JOBS_TOTAL, "Attempts that ended, by outcome.");
    describe_counter!(names::JOBS_LEFT_TOTAL, "Jobs left to workers of another release, by reason.");
    describe_counter!(names::JOBS_RESCUED_TOTAL, "Jobs rescued from workers whose lease expired.");
    describe_gauge!(names::WORKER_SLOTS, "Slots of this worker, busy and free.");
    describe_counter!(names::ENQUEUE_REJECTED_TOTAL, "Jobs not accepted, by reason.");
    describe_histogram!(names::SCHEDULE_LAG_SECONDS, Unit::Seconds, "From a schedule's fire time to its job's insert.");
    describe_counter!(names::HTTP_REQUESTS_TOTAL, "Requests answered, by route and status.");
    describe_counter!(names::HTTP_FLOODS_TOTAL, "Connections ended for a flood of HTTP/2 control frames.");
    describe_counter!(names::RATE_LIMITED_TOTAL, "Requests refused, by the policy that refused them.");
    describe_counter!(names::RATE_LIMIT_LOCAL_TOTAL, "Requests whose rate was checked without Redis.");
    describe_histogram!(names::HTTP_REQUEST_DURATION_SECONDS, Unit::Seconds, "From request head to response head.");
    describe_gauge!(names::BUILD_INFO, "Always 1; the label is the release that runs.");
    describe_histogram!(names::INDEX_REBUILD_SECONDS, Unit::Seconds, "One rebuild of the Redis index.");
    describe_counter!(names::INDEX_SWEPT_TOTAL, "Waiting jobs that the sweep pushed again.");
    describe_counter!(names::INDEX_DRIFT_TOTAL, "Invariants of the Redis index that were repaired.");
    describe_counter!(names::WEBHOOK_DELIVERIES_TOTAL, "Attempts to deliver a webhook, by outcome.");
    describe_gauge!(names::EVENT_STREAMS, "Open streams of job events.");
    describe_gauge!(names::SCHEDULER_LEADER, "1 in the scheduler that leads, 0 in the others.");
    describe_gauge!(names::COMPUTE_WAITING, "Tenant-controlled computations that wait for a thread.");
    describe_histogram!(names::COMPUTE_WAIT_SECONDS, Unit::Seconds, "Wait of a computation for a thread, by task.");
    describe_histogram!(names::COMPUTE_DURATION_SECONDS, Unit::Seconds, "Run time of a computation, by task.");
    describe_counter!(names::COMPUTE_REFUSED_TOTAL, "Computations refused because their tenant had too many waiting.");
    // Alerts on a counter need a zero value, so the counter must exist before its first event.
    counter!(names::INDEX_SWEPT_TOTAL).increment(0);
    counter!(names::JOBS_RESCUED_TOTAL).increment(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_descriptions_and_buckets() {
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
