//! What ties a new job to others: a unique key, a batch, jobs that it waits for.
//!
//! Invariant: a job without ties is one row in the ledger and nothing else. Next: [`super::producer`] writes ties,
//! [`super::aftermath`] unties them when the job is final.

use std::time::Duration;

use uuid::Uuid;

use crate::db::TenantTx;

/// Bits of the column `hooks`: who cares about a job's end. A job with none of them is completed in one plain update.
pub mod hooks {
    /// It holds a unique key until it is final.
    pub const UNIQUE_KEY: i16 = 1;
    /// It is counted by a batch.
    pub const BATCH: i16 = 2;
    /// Jobs wait for it.
    pub const DEPENDENTS: i16 = 4;
    /// Its end may have to be told to an endpoint of the tenant. Known to who finishes it, and not stored.
    pub const WEBHOOKS: i16 = 8;
}

/// Jobs that may wait for one. Its end releases the first of them at once and the rest in steps, see [`super::cascade`].
pub const MAX_DEPENDENTS: u16 = 10_000;

/// How many dependencies the waiting jobs of the tenant have, counted up to `limit`.
pub async fn count_open_dependencies(transaction: &mut TenantTx, limit: usize) -> Result<usize, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (select from job_dependencies where tenant_id = $1 limit $2) d"#,
        tenant,
        i64::try_from(limit).unwrap_or(i64::MAX)
    );
    Ok(usize::try_from(count.fetch_one(&mut **transaction).await?).unwrap_or(usize::MAX))
}

/// Everything that ties one job to others.
#[derive(Clone, Debug, Default)]
pub struct Ties {
    /// No other job of the tenant may hold this key.
    pub unique: Option<UniqueKey>,
    /// The jobs that must be final first; each exists, or stands earlier in the same request.
    pub after: Vec<Uuid>,
    /// What becomes of this job if one of them does not complete.
    pub on_dependency_failure: DependencyFailure,
    /// Its part in a batch.
    pub batch: Option<BatchPart>,
}

/// A key that one job of a tenant holds at a time.
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
    /// For this long from the insert on, whatever becomes of the job.
    Elapsed(Duration),
}

/// What becomes of a job when one that it waits for is discarded or cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DependencyFailure {
    /// It is cancelled, and so are those that wait for it under the same rule.
    #[default]
    Cancel,
    /// It runs when all of them are final, however they ended.
    Run,
}

/// A job's part in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPart {
    /// The batch counts it.
    Member(Uuid),
    /// It runs once all members are final. Stands in the same request as they do.
    Completion(Uuid),
}

impl Ties {
    /// Whether the job waits for something else than its time and a worker.
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

    /// The hooks it is born with.
    pub fn hooks(&self) -> i16 {
        let key = self.unique.as_ref().filter(|unique| unique.until == UniqueUntil::Final);
        let member = matches!(self.batch, Some(BatchPart::Member(_)));
        key.map_or(0, |_| hooks::UNIQUE_KEY) | if member { hooks::BATCH } else { 0 }
    }
}

/// Why one job of a request was not committed, while the others were.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Refusal {
    /// Another job holds its unique key.
    Duplicate {
        /// The holder.
        holder: Uuid,
    },
    /// The tenant has no job of these ids to wait for.
    UnknownDependencies {
        /// Places in [`Ties::after`].
        places: Vec<usize>,
    },
    /// As many jobs as may wait for one, [`MAX_DEPENDENTS`], wait for these already.
    TooManyDependents {
        /// Places in [`Ties::after`].
        places: Vec<usize>,
    },
    /// A job of the same request that it was to wait for was refused.
    DependencyRefused {
        /// The place in [`Ties::after`].
        place: usize,
    },
}

/// A job of a request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// The id that it would have had.
    pub id: Uuid,
    /// Why.
    pub refusal: Refusal,
}
