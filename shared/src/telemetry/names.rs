//! Every name that operators rely on: metrics, their labels, and fields of log lines.
//!
//! Invariant: dashboards and alerts depend on the names here; they change only with a decision
//! record. Base units, `_total` on counters only. `metrics.rs` describes each metric to Prometheus.

/// Jobs in each `state` (`scheduled`, `available`, `running`, `retryable`), by `queue`; from the
/// leading scheduler.
pub const QUEUE_DEPTH: &str = "rota_queue_depth";
/// Age of the oldest available job, by `queue`; from the leading scheduler.
pub const QUEUE_OLDEST_AGE_SECONDS: &str = "rota_queue_oldest_age_seconds";
/// Time from a job being due to its start, by `queue`.
pub const JOB_WAIT_SECONDS: &str = "rota_job_wait_seconds";
/// Run time of one attempt, by `queue` and `kind`.
pub const JOB_DURATION_SECONDS: &str = "rota_job_duration_seconds";
/// Attempts that ended, by `queue`, `kind` and `outcome`.
pub const JOBS_TOTAL: &str = "rota_jobs_total";
/// Jobs rescued from workers whose lease expired.
pub const JOBS_RESCUED_TOTAL: &str = "rota_jobs_rescued_total";
/// Jobs that a worker left to workers of another release, by `queue` and `reason` (`unknown_kind`,
/// `newer_args`).
pub const JOBS_LEFT_TOTAL: &str = "rota_jobs_left_total";
/// Slots of this worker by `state` (`busy`, `free`); `queue` is `all`, because the queues of a
/// worker share its slots.
pub const WORKER_SLOTS: &str = "rota_worker_slots";
/// Jobs not accepted, by `reason`.
pub const ENQUEUE_REJECTED_TOTAL: &str = "rota_enqueue_rejected_total";
/// Time from a schedule's fire time to the insert of its job.
pub const SCHEDULE_LAG_SECONDS: &str = "rota_schedule_lag_seconds";
/// Requests answered, by `method`, `route` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "rota_http_requests_total";
/// Time from the head of a request to the head of its response, by `method` and `route`.
pub const HTTP_REQUEST_DURATION_SECONDS: &str = "rota_http_request_duration_seconds";
/// Requests refused, by the `policy` that refused them.
pub const RATE_LIMITED_TOTAL: &str = "rota_rate_limited_total";
/// Requests whose rate this process checked alone: Redis did not respond, or
/// has enough anonymous networks.
pub const RATE_LIMIT_LOCAL_TOTAL: &str = "rota_rate_limit_local_total";
/// Connections ended for a flood of HTTP/2 control frames.
pub const HTTP_FLOODS_TOTAL: &str = "rota_http_floods_total";
/// Always 1; `version` is the release that runs.
pub const BUILD_INFO: &str = "rota_build_info";
/// One rebuild of the Redis index from the ledger.
pub const INDEX_REBUILD_SECONDS: &str = "rota_index_rebuild_seconds";
/// Waiting jobs that the sweep pushed again in case the index lacks them.
pub const INDEX_SWEPT_TOTAL: &str = "rota_index_swept_total";
/// Invariants of the Redis index that did not hold and were repaired, by `invariant`.
pub const INDEX_DRIFT_TOTAL: &str = "rota_index_drift_total";
/// Attempts to deliver a webhook, by `outcome` (`delivered`, `failed`, `given_up`, `held`).
pub const WEBHOOK_DELIVERIES_TOTAL: &str = "rota_webhook_deliveries_total";
/// Open streams of job events in this process.
pub const EVENT_STREAMS: &str = "rota_event_streams";
/// 1 in the scheduler that leads, 0 in the others.
pub const SCHEDULER_LEADER: &str = "rota_scheduler_leader";

/// Tenant-controlled computations (templates, large documents) that wait for a thread of this
/// process.
pub const COMPUTE_WAITING: &str = "rota_compute_waiting";
/// Time that a computation waited for a thread, by `task`.
pub const COMPUTE_WAIT_SECONDS: &str = "rota_compute_wait_seconds";
/// Run time of a computation, by `task`.
pub const COMPUTE_DURATION_SECONDS: &str = "rota_compute_duration_seconds";
/// Computations refused because too many of the same tenant were waiting, by `task`.
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
    /// Kind of computation.
    pub const TASK: &str = "task";
    /// Why a job was not accepted or was left to another worker.
    pub const REASON: &str = "reason";
    /// Limit on the rate of requests.
    pub const POLICY: &str = "policy";
    /// HTTP method.
    pub const METHOD: &str = "method";
    /// Route template such as `/api/v1/jobs/{id}`, never the path: each id would create a series.
    pub const ROUTE: &str = "route";
    /// HTTP status code.
    pub const STATUS: &str = "status";
    /// Release of the program.
    pub const VERSION: &str = "version";
}

/// Span fields that appear on every log line inside the span. `tracing` needs them spelled out in
/// its macros; operators can rely on this list.
pub mod field {
    /// The request that the line belongs to.
    pub const REQUEST_ID: &str = "request_id";
    /// The tenant's id.
    pub const TENANT: &str = "tenant";
    /// Id of the running job.
    pub const JOB_ID: &str = "job_id";
}
