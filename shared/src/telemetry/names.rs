//! Every name under which an operator finds something: metrics, their labels, fields of log lines.
//!
//! Invariant: a name here is a promise to dashboards and alerts and changes only with a decision record. Base units,
//! `_total` on counters alone. `metrics.rs` describes each to Prometheus.

/// Jobs in each `state` (`scheduled`, `available`, `running`, `retryable`), by `queue`; from the leading scheduler.
pub const QUEUE_DEPTH: &str = "rota_queue_depth";
/// Age of the oldest available job, by `queue`; from the leading scheduler.
pub const QUEUE_OLDEST_AGE_SECONDS: &str = "rota_queue_oldest_age_seconds";
/// From due to started, by `queue`.
pub const JOB_WAIT_SECONDS: &str = "rota_job_wait_seconds";
/// Run time of one attempt, by `queue` and `kind`.
pub const JOB_DURATION_SECONDS: &str = "rota_job_duration_seconds";
/// Attempts that ended, by `queue`, `kind` and `outcome`.
pub const JOBS_TOTAL: &str = "rota_jobs_total";
/// Jobs taken from workers that fell silent.
pub const JOBS_RESCUED_TOTAL: &str = "rota_jobs_rescued_total";
/// Jobs that a worker of another release left to others, by `queue` and `reason` (`unknown_kind`, `newer_args`).
pub const JOBS_LEFT_TOTAL: &str = "rota_jobs_left_total";
/// Slots of this worker by `state` (`busy`, `free`); `queue` is `all`, because the queues of a worker share its slots.
pub const WORKER_SLOTS: &str = "rota_worker_slots";
/// Jobs not accepted, by `reason`.
pub const ENQUEUE_REJECTED_TOTAL: &str = "rota_enqueue_rejected_total";
/// From a schedule's fire time to its job's insert.
pub const SCHEDULE_LAG_SECONDS: &str = "rota_schedule_lag_seconds";
/// Requests answered, by `method`, `route` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "rota_http_requests_total";
/// From the request's head to the answer's head, by `method` and `route`.
pub const HTTP_REQUEST_DURATION_SECONDS: &str = "rota_http_request_duration_seconds";
/// Connections ended for a flood of HTTP/2 control frames.
pub const HTTP_FLOODS_TOTAL: &str = "rota_http_floods_total";
/// Always 1; `version` says what runs.
pub const BUILD_INFO: &str = "rota_build_info";
/// One rebuild of the Redis index from the ledger.
pub const INDEX_REBUILD_SECONDS: &str = "rota_index_rebuild_seconds";
/// Jobs that still waited when the sweep came by, and were pushed again in case the index missed them.
pub const INDEX_SWEPT_TOTAL: &str = "rota_index_swept_total";
/// Invariants of the Redis index that did not hold and were repaired, by `invariant`.
pub const INDEX_DRIFT_TOTAL: &str = "rota_index_drift_total";
/// Attempts to deliver a webhook, by `outcome` (`delivered`, `failed`, `given_up`, `held`).
pub const WEBHOOK_DELIVERIES_TOTAL: &str = "rota_webhook_deliveries_total";
/// Open streams of job events in this process.
pub const EVENT_STREAMS: &str = "rota_event_streams";
/// 1 in the scheduler that leads, 0 in the others.
pub const SCHEDULER_LEADER: &str = "rota_scheduler_leader";

/// Computations that tenants control (templates, large documents) that wait for a thread of this process.
pub const COMPUTE_WAITING: &str = "rota_compute_waiting";
/// How long a computation waited for a thread, by `task`.
pub const COMPUTE_WAIT_SECONDS: &str = "rota_compute_wait_seconds";
/// How long a computation ran, by `task`.
pub const COMPUTE_DURATION_SECONDS: &str = "rota_compute_duration_seconds";
/// Computations refused because too many of their tenant waited, by `task`.
pub const COMPUTE_REFUSED_TOTAL: &str = "rota_compute_refused_total";

/// Labels of metrics.
pub mod label {
    /// Name of a queue.
    pub const QUEUE: &str = "queue";
    /// State of a job or slot.
    pub const STATE: &str = "state";
    /// Kind of a job.
    pub const KIND: &str = "kind";
    /// How an attempt ended.
    pub const OUTCOME: &str = "outcome";
    /// What is computed.
    pub const TASK: &str = "task";
    /// Why something was not accepted.
    pub const REASON: &str = "reason";
    /// HTTP method.
    pub const METHOD: &str = "method";
    /// Route template such as `/api/v1/jobs/{id}`, never the path itself: ids would make a series each.
    pub const ROUTE: &str = "route";
    /// HTTP status code.
    pub const STATUS: &str = "status";
    /// Release of the program.
    pub const VERSION: &str = "version";
}

/// Fields of spans that appear on every log line inside them. `tracing` needs them spelt out in its macros; this list
/// is what an operator can rely on.
pub mod field {
    /// The request that caused the line.
    pub const REQUEST_ID: &str = "request_id";
    /// Id of the tenant concerned.
    pub const TENANT: &str = "tenant";
    /// Id of the job that runs.
    pub const JOB_ID: &str = "job_id";
}
