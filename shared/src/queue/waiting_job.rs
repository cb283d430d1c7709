//! Jobs as the index stores them: what a push adds and a cancellation removes.

use std::{collections::HashMap, hash::Hash};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::job::Priority;
use crate::tenancy::TenantId;

/// A waiting job in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingJob {
    /// The job's id.
    pub id: Uuid,
    /// The job's tenant.
    pub tenant: TenantId,
    /// Its order among the tenant's jobs.
    pub priority: Priority,
    /// Earliest start in Unix milliseconds; `None` means at once by Redis's clock, independent of
    /// other clocks.
    pub run_at_ms: Option<i64>,
}

impl WaitingJob {
    /// From a row of the ledger.
    pub(in crate::queue) fn of_row(id: Uuid, tenant: Uuid, priority: i16, run_at: DateTime<Utc>) -> Self {
        let (tenant, priority) = (TenantId::new(tenant), Priority::from_ledger(priority));
        Self { id, tenant, priority, run_at_ms: Some(run_at.timestamp_millis()) }
    }
}

/// Groups jobs by queue, in their order.
pub(in crate::queue) fn by_queue<Q: Eq + Hash, J>(jobs: impl IntoIterator<Item = (Q, J)>) -> HashMap<Q, Vec<J>> {
    let mut queues: HashMap<Q, Vec<J>> = HashMap::new();
    for (queue, job) in jobs {
        queues.entry(queue).or_default().push(job);
    }
    queues
}

/// A cancelled job, for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledJob {
    /// The job's id.
    pub id: Uuid,
    /// The job's tenant.
    pub tenant: TenantId,
    /// Its order among the tenant's jobs.
    pub priority: Priority,
    /// The last cancelled attempt; a redrive starts a later one.
    pub attempt: i32,
}
