//! Relations of a new job to others: a unique key, a batch, dependencies.
//!
//! Invariant: a job without relations is one row in the ledger and nothing else.
//!
//! Next: [`crate::queue::enqueue`] writes relations, [`crate::queue::ledger::follow_up`] releases them when the job is
//! final.

use std::time::Duration;

use uuid::Uuid;

use crate::db::TenantTx;

/// Follow-up flags, the bits of the column `hooks`: what the end of a job affects. A job with none
/// of them is completed by one plain update.
pub mod follow_up_flags {
    /// The job holds a unique key until it is final.
    pub const UNIQUE_KEY: i16 = 1;
    /// A batch counts the job.
    pub const BATCH: i16 = 2;
    /// Other jobs depend on it.
    pub const DEPENDENTS: i16 = 4;
    /// An endpoint of the tenant may have to be notified of its end. Set by the worker that
    /// finishes the job, and not stored.
    pub const WEBHOOKS: i16 = 8;
}

/// Dependents that one job may have. Its end releases the first of them at once and the rest in
/// steps, see [`crate::queue::control::cascade`].
pub const MAX_DEPENDENTS: u16 = 10_000;

/// Number of dependencies of the tenant's waiting jobs, counted up to `limit`.
pub async fn count_open_dependencies(transaction: &mut TenantTx, limit: usize) -> Result<usize, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (select from job_dependencies where tenant_id = $1 limit $2) d"#,
        tenant,
        i64::try_from(limit).unwrap_or(i64::MAX)
    );
    Ok(usize::try_from(count.fetch_one(&mut **transaction).await?).unwrap_or(usize::MAX))
}

/// The relations of one job.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// A key that no other job of the tenant may hold.
    pub unique: Option<UniqueKey>,
    /// Dependencies, which must be final first; each exists, or precedes the job in the same
    /// request.
    pub after: Vec<Uuid>,
    /// What happens to this job if a dependency does not complete.
    pub on_dependency_failure: DependencyFailure,
    /// Its role in a batch.
    pub batch: Option<BatchPart>,
}

/// A key that only one job of a tenant can hold at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// 1 to 255 characters.
    pub key: String,
    /// How long it is held.
    pub until: UniqueUntil,
}

/// How long a unique key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueUntil {
    /// Until the job is final.
    Final,
    /// For this long after the insert, whatever happens to the job.
    Elapsed(Duration),
}

/// What happens to a job when a dependency is discarded or cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DependencyFailure {
    /// It is cancelled, and so are its dependents that have the same rule.
    #[default]
    Cancel,
    /// It runs once all dependencies are final, whatever their states.
    Run,
}

/// A job's role in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPart {
    /// The batch counts the job.
    Member(Uuid),
    /// The job runs once all members are final. It is part of the same request.
    Completion(Uuid),
}

impl Relations {
    /// Whether the job waits for anything other than its `run_at` and a worker.
    pub fn waits(&self) -> bool {
        !self.after.is_empty() || matches!(self.batch, Some(BatchPart::Completion(_)))
    }

    /// The batch that it belongs to or completes.
    pub const fn batch_id(&self) -> Option<Uuid> {
        match self.batch {
            Some(BatchPart::Member(id) | BatchPart::Completion(id)) => Some(id),
            None => None,
        }
    }

    /// The follow-up flags of the new job.
    pub fn follow_up_flags(&self) -> i16 {
        let key = self.unique.as_ref().filter(|unique| unique.until == UniqueUntil::Final);
        let member = matches!(self.batch, Some(BatchPart::Member(_)));
        key.map_or(0, |_| follow_up_flags::UNIQUE_KEY) | if member { follow_up_flags::BATCH } else { 0 }
    }
}

/// Why one job of a request was not committed while others were.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Refusal {
    /// Another job holds its unique key.
    Duplicate {
        /// The holder.
        holder: Uuid,
    },
    /// The tenant has no jobs with these ids.
    UnknownDependencies {
        /// Positions in [`Relations::after`].
        places: Vec<usize>,
    },
    /// These dependencies already have [`MAX_DEPENDENTS`] dependents.
    TooManyDependents {
        /// Positions in [`Relations::after`].
        places: Vec<usize>,
    },
    /// A dependency in the same request was refused.
    DependencyRefused {
        /// The position in [`Relations::after`].
        place: usize,
    },
}

/// A job of a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// The id that the job would have had.
    pub id: Uuid,
    /// Why it was refused.
    pub refusal: Refusal,
}
