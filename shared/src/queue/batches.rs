//! Reading batches. They are made by [`super::producer`] and counted down by [`super::aftermath`].

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::TenantTx;

/// A batch as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JobBatch)]
pub struct BatchRecord {
    /// The batch's id.
    pub id: Uuid,
    /// How many jobs it has, its completion job not counted.
    pub total: i32,
    /// How many are not final.
    pub pending: i32,
    /// How many succeeded.
    pub completed: i32,
    /// How many were given up.
    pub discarded: i32,
    /// How many were cancelled.
    pub cancelled: i32,
    /// The job that runs once none is pending.
    pub completion_job: Uuid,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When its last job became final.
    pub finished_at: Option<DateTime<Utc>>,
}

/// The batch of this id, if it is the tenant's.
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
