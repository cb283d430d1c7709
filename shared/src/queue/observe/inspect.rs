//! Reads jobs: one, or a page of a tenant's jobs, with `running` (and for a single job, its
//! progress) merged in from the index.
//!
//! Invariant: reads use [`TenantTx`], so the job of another tenant is simply not found. If Redis is
//! unavailable, a running job is shown in its ledger state; the read does not fail. A page omits
//! large values ([`INLINE_BYTES`]) and does not read them from the table either, so that a page
//! costs no more than its rows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use uuid::Uuid;

use crate::queue::{Index, JobState, QueueName, observe::progress::Progress};
use crate::{
    db::{SystemDb, TenantTx},
    tenancy::TenantId,
};

/// Size in bytes up to which a page of jobs contains args, result or errors; only [`find`] returns
/// larger ones.
pub const INLINE_BYTES: i32 = 1_024;

/// One job as shown to its tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobRecord {
    /// The job's id.
    pub id: Uuid,
    /// The job kind.
    pub kind: String,
    /// The queue it waits in.
    pub queue: String,
    /// Its current state.
    #[serde(serialize_with = "shown")]
    pub state: ShownState,
    /// Its priority among the tenant's jobs, 1 (first) to 4.
    pub priority: i16,
    /// The attempt that is next, running, or was the last.
    pub attempt: i32,
    /// Failures after which the job is discarded.
    pub max_attempts: i16,
    /// Its arguments.
    #[schema(value_type = Option<Object>)]
    pub args: Option<Json<Box<RawValue>>>,
    /// Whether `args` is left out because it is large.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_omitted: bool,
    /// The result that the kind stored.
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Json<Box<RawValue>>>,
    /// Whether `result` is left out because it is large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub result_omitted: bool,
    /// Errors of earlier attempts, the newest last.
    #[schema(value_type = Option<Vec<FailedAttempt>>)]
    pub errors: Option<serde_json::Value>,
    /// Whether `errors` is left out because it is large.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub errors_omitted: bool,
    /// The earliest time at which it may run, or could have run.
    pub run_at: DateTime<Utc>,
    /// Time at which it was committed.
    pub inserted_at: DateTime<Utc>,
    /// Time at which it became final.
    pub finalized_at: Option<DateTime<Utc>>,
    /// No run starts after this time.
    pub expires_at: Option<DateTime<Utc>>,
    /// The unique key that it was submitted with.
    pub unique_key: Option<String>,
    /// The batch that it belongs to or completes.
    pub batch_id: Option<Uuid>,
    /// Number of jobs (or its batch) that must be final before it may run.
    pub waits_for: i16,
    /// Progress as reported by its run.
    pub progress: Option<Progress>,
}

/// A failed run, as stored in the ledger.
#[derive(Debug, ToSchema)]
pub struct FailedAttempt {
    /// The number of the run.
    pub attempt: i32,
    /// Time at which it ended.
    pub at: DateTime<Utc>,
    /// What went wrong.
    pub error: String,
}

/// A ledger state, or `running`, which only the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownState {
    /// A state in the ledger.
    Ledger(JobState),
    /// A worker holds the job.
    Running,
}

impl ShownState {
    /// The name used by the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ledger(state) => state.as_str(),
            Self::Running => "running",
        }
    }
}

impl PartialSchema for ShownState {
    fn schema() -> RefOr<Schema> {
        let states = JobState::ALL.map(Self::Ledger).into_iter().chain([Self::Running]).map(Self::as_str);
        let described = "A state of the ledger, or `running` while a worker holds the job.";
        let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(states));
        Schema::Object(schema.description(Some(described)).build()).into()
    }
}

impl ToSchema for ShownState {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde requires")]
fn shown<S: serde::Serializer>(state: &ShownState, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

/// Restricts a page of jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only this ledger state.
    pub state: Option<JobState>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this queue.
    pub queue: Option<String>,
}

#[expect(clippy::struct_excessive_bools, reason = "the columns of a row")]
struct Row {
    id: Uuid,
    kind: String,
    queue: String,
    state: JobState,
    priority: i16,
    attempt: i32,
    max_attempts: i16,
    args: Option<Json<Box<RawValue>>>,
    args_omitted: bool,
    result: Option<Json<Box<RawValue>>>,
    result_omitted: bool,
    errors: Option<serde_json::Value>,
    errors_omitted: bool,
    run_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    inserted_at: DateTime<Utc>,
    finalized_at: Option<DateTime<Utc>>,
    unique_key: Option<String>,
    batch_id: Option<Uuid>,
    waits_for: i16,
    is_due: bool,
}

/// The job with this id, if it belongs to the tenant.
pub async fn find(transaction: &mut TenantTx, index: &Index, id: Uuid) -> Result<Option<JobRecord>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, kind, queue, state as "state: JobState", priority, attempt, max_attempts, args as "args?: Json<Box<RawValue>>", false as "args_omitted!",
                  result as "result: Json<Box<RawValue>>", false as "result_omitted!", errors, false as "errors_omitted!",
                  run_at, expires_at, inserted_at, finalized_at, unique_key, batch_id, waits_for, run_at <= now() as "is_due!"
           from jobs where id = $1"#,
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let Some(mut job) = merge_running(index, transaction.tenant(), vec![row]).await.pop() else { return Ok(None) };
    if job.state == ShownState::Running {
        job.progress = index.progress(id).await.ok().flatten();
    }
    Ok(Some(job))
}

/// A page of the tenant's jobs, the newest first, with ids lower than `before`.
pub async fn list(
    transaction: &mut TenantTx,
    index: &Index,
    filter: &JobFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobRecord>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    // `pg_column_size` is the stored size (compressed for large values), known without reading the
    // value; values that are small by it are read and measured as text.
    let rows = sqlx::query_as!(
        Row,
        r#"select id, kind, queue, state as "state: JobState", priority, attempt, max_attempts,
                  case when a.fits then args end as "args?: Json<Box<RawValue>>", not a.fits as "args_omitted!",
                  case when r.fits then result end as "result?: Json<Box<RawValue>>", not r.fits as "result_omitted!",
                  case when e.fits then errors end as errors, not e.fits as "errors_omitted!",
                  run_at, expires_at, inserted_at, finalized_at, unique_key, batch_id, waits_for, run_at <= now() as "is_due!"
           from jobs
           cross join lateral (select case when pg_column_size(args) <= 2 * $7 then octet_length(args::text) <= $7 else false end as fits) a
           cross join lateral (select case when result is null then true when pg_column_size(result) <= 2 * $7 then octet_length(result::text) <= $7 else false end as fits) r
           cross join lateral (select case when errors is null then true when pg_column_size(errors) <= 2 * $7 then octet_length(errors::text) <= $7 else false end as fits) e
           where tenant_id = $1 and id < $2
             and ($3::job_state is null or state = $3) and ($4::text is null or kind = $4) and ($5::text is null or queue = $5)
           order by id desc limit $6"#,
        tenant,
        before.unwrap_or(Uuid::max()),
        filter.state as Option<JobState>,
        filter.kind,
        filter.queue,
        limit,
        INLINE_BYTES
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(merge_running(index, transaction.tenant(), rows).await)
}

/// Jobs of one queue, of all tenants, that are not due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotDue {
    /// Scheduled for a later time.
    pub scheduled: u64,
    /// Waiting for their next attempt.
    pub retryable: u64,
}

/// Counts the jobs that are not due, by queue, for the queue depth gauges. Reads only the entries
/// of the index `jobs_due` from now on, whose number grows with the counted jobs alone.
pub async fn count_not_due(db: &SystemDb) -> Result<HashMap<QueueName, NotDue>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select queue, state as "state: JobState", count(*) as "count!" from jobs
           where state in ('scheduled', 'retryable') and run_at > now() group by queue, state"#
    )
    .fetch_all(db.pool())
    .await?;
    let mut counted: HashMap<QueueName, NotDue> = HashMap::new();
    for row in rows {
        // A queue cannot have an invalid name.
        let Ok(queue) = row.queue.parse() else { continue };
        let not_due = counted.entry(queue).or_default();
        let count = row.count.unsigned_abs();
        if row.state == JobState::Retryable { not_due.retryable = count } else { not_due.scheduled = count }
    }
    Ok(counted)
}

async fn merge_running(index: &Index, tenant: TenantId, rows: Vec<Row>) -> Vec<JobRecord> {
    let mut records: Vec<JobRecord> = rows.into_iter().map(Row::into_record).collect();
    let mut queues: Vec<String> =
        records.iter().filter(|record| record.is_waiting()).map(|record| record.queue.clone()).collect();
    queues.sort_unstable();
    queues.dedup();
    for queue in queues {
        let waiting: Vec<usize> =
            (0..records.len()).filter(|&at| records[at].is_waiting() && records[at].queue == queue).collect();
        let ids: Vec<_> = waiting.iter().map(|&at| (records[at].id, tenant)).collect();
        let Ok(name) = queue.parse::<QueueName>() else { continue };
        let Ok(leased) = index.leased(&name, &ids).await else { continue };
        for (at, leased) in waiting.into_iter().zip(leased) {
            if leased {
                records[at].state = ShownState::Running;
            }
        }
    }
    records
}

impl JobRecord {
    const fn is_waiting(&self) -> bool {
        matches!(self.state, ShownState::Ledger(state) if !state.is_final())
    }
}

impl Row {
    fn into_record(self) -> JobRecord {
        // Promotion does not write to the ledger, so a scheduled job that is due counts as
        // available.
        let free = self.is_due && self.waits_for == 0;
        let state = if self.state == JobState::Scheduled && free { JobState::Available } else { self.state };
        JobRecord {
            id: self.id,
            kind: self.kind,
            queue: self.queue,
            state: ShownState::Ledger(state),
            priority: self.priority,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            args: self.args,
            args_omitted: self.args_omitted,
            result: self.result,
            result_omitted: self.result_omitted,
            errors: self.errors,
            errors_omitted: self.errors_omitted,
            run_at: self.run_at,
            inserted_at: self.inserted_at,
            finalized_at: self.finalized_at,
            expires_at: self.expires_at,
            unique_key: self.unique_key,
            batch_id: self.batch_id,
            waits_for: self.waits_for,
            progress: None,
        }
    }
}
