//! Reads batches. [`crate::queue::enqueue`] creates them and [`crate::queue::ledger::follow_up`] counts them down.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// A batch as shown to its tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JobBatch)]
pub struct BatchRecord {
    /// The batch's id.
    pub id: Uuid,
    /// Number of jobs, without the completion job.
    pub total: i32,
    /// Jobs that are not final.
    pub pending: i32,
    /// Jobs that completed.
    pub completed: i32,
    /// Jobs that were discarded.
    pub discarded: i32,
    /// Jobs that were cancelled.
    pub cancelled: i32,
    /// The job that runs once no job is pending.
    pub completion_job: Uuid,
    /// Time at which it was submitted.
    pub created_at: DateTime<Utc>,
    /// Time at which its last job became final.
    pub finished_at: Option<DateTime<Utc>>,
}

/// The batch with this id, if it belongs to the tenant.
pub async fn find(transaction: &mut TenantTx, id: Uuid) -> Result<Option<BatchRecord>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        BatchRecord,
        "select id, total, pending, completed, discarded, cancelled, completion_job, created_at, finished_at
         from batches where tenant_id = $1 and id = $2",
        tenant,
        id
    )
    .fetch_optional(&mut **transaction)
    .await
}
