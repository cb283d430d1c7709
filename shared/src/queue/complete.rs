//! Completes runs: the outcome is written to the ledger together with its follow-up, then the lease
//! is settled in the index.
//!
//! Invariant: a finish counts only if the row still waits with the leased attempt. The finish of a
//! job that was rescued, cancelled or overtaken in the meantime matches no row and changes nothing.
//! The lease ends after the ledger has the outcome, with the result that the ledger returned.
//!
//! [`complete`] is the whole way for one try. A worker, whose batches must survive outages and locks,
//! writes them by [`Recording`] in several tries and ends them by the same [`settle`]. A rescue
//! raises attempts instead of writing outcomes, and ends the same way.
//!
//! Next: `complete/recording.rs` for the tries, `complete/statements.rs` for the SQL.

pub mod effects;
mod error_text;
mod outcome;
mod recording;
mod statements;

use std::{sync::Arc, time::Duration};

use foldhash::{HashMap, HashMapExt as _};
use futures::future::join_all;
use redis::RedisError;
use uuid::Uuid;

pub use self::error_text::{MAX_ERROR_BYTES, bounded_text};
pub use self::outcome::{MAX_RESULT_BYTES, Outcome};
pub use self::recording::Recording;
use crate::db::{PinnedConnections, SystemDb};
use crate::queue::{
    index::Index,
    job::Priority,
    lease::{Lease, Settlement},
    ledger::follow_up::FollowUp,
    shard::Shard,
};

/// Errors kept per job, the latest ones: each failure rewrites all of them.
pub const MAX_ERRORS: i32 = 20;

/// The end of one run.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The lease under which the job ran.
    pub lease: Arc<Lease>,
    /// How it ended; `None` releases the job as if it had not been fetched, or belongs to a run
    /// that was cancelled.
    pub outcome: Option<Outcome>,
    /// Worker time used.
    pub ran: Duration,
    /// Follow-up flags: those of the lease, and those added since by this process. Flags that
    /// others have added are in the ledger only.
    pub follow_up_flags: i16,
}

/// How the ledger treated a finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Written; the job is final.
    Final,
    /// Written; the job waits again from this time (Unix milliseconds) on.
    Again(i64, Priority),
    /// Refused, the job is already final: it was cancelled, or another holder finished it first.
    RefusedFinal,
    /// Refused, the job has a later attempt: it was rescued or redriven.
    RefusedOvertaken,
    /// Not written yet: another transaction has locked the row.
    Locked,
    /// Not written yet: the statement timed out although it was written alone.
    TimedOut,
}

/// How the ledger treated a batch of finishes.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// An entry for each id.
    pub recorded: HashMap<Uuid, Recorded>,
    /// Follow-up to announce to the index.
    pub follow_up: FollowUp,
}

/// Completes runs, at most one for each job, in one try.
pub async fn complete(db: &SystemDb, index: &Index, finishes: &[Finish]) -> Result<Records, sqlx::Error> {
    let records = record(db, finishes).await?;
    if let Err(error) = settle(index, settlements(finishes, &records), &records.follow_up).await {
        tracing::debug!(%error, "could not settle leases; they will expire");
    }
    Ok(records)
}

/// The first half of [`complete`]: writes the outcomes to the ledger, with their follow-up.
pub async fn record(db: &SystemDb, finishes: &[Finish]) -> Result<Records, sqlx::Error> {
    let mut recording = Recording::of(finishes);
    recording.advance(&PinnedConnections::new(db, 1)).await?;
    Ok(recording.apart().0)
}

/// The settlements of finishes whose outcomes are in the ledger, by shard.
pub fn settlements<'a>(
    finishes: impl IntoIterator<Item = &'a Finish>,
    records: &Records,
) -> Vec<(Shard, Vec<Settlement>)> {
    let mut by_shard: HashMap<Shard, Vec<Settlement>> = HashMap::new();
    for finish in finishes {
        if let Some(settlement) = finish.settlement(records.recorded.get(&finish.lease.id)) {
            by_shard.entry(finish.lease.shard.clone()).or_default().push(settlement);
        }
    }
    by_shard.into_iter().collect()
}

/// The second half of [`complete`]: ends leases in the index and announces the follow-up. Returns
/// the first error. A lease that is not settled expires; the rescue then finds its row final, or
/// waiting with the next attempt.
pub async fn settle(
    index: &Index,
    settlements: Vec<(Shard, Vec<Settlement>)>,
    follow_up: &FollowUp,
) -> Result<(), RedisError> {
    let settle = async |(shard, settlements): (Shard, Vec<Settlement>)| index.settle(&shard, &settlements).await;
    let settled = join_all(settlements.into_iter().map(settle)).await;
    follow_up.announce(index).await;
    settled.into_iter().collect()
}

impl Finish {
    /// The end of the lease; `None` if the ledger has not recorded the finish, or if the job and its
    /// lease belong to another worker.
    pub fn settlement(&self, recorded: Option<&Recorded>) -> Option<Settlement> {
        if self.outcome.is_none() {
            // The time used by a cancelled run is charged: otherwise cancelling long runs would be a
            // way to run jobs for free.
            let ran = (!self.ran.is_zero()).then_some(self.ran);
            return Some(Settlement { ran, ..self.lease.release() });
        }
        let again = match recorded? {
            Recorded::Final | Recorded::RefusedFinal => None,
            Recorded::Again(run_at_ms, priority) => Some((*run_at_ms, *priority)),
            Recorded::RefusedOvertaken | Recorded::Locked | Recorded::TimedOut => return None,
        };
        Some(Settlement { ran: Some(self.ran), again, ..self.lease.release() })
    }
}

impl Records {
    /// Adds records that were written separately.
    pub fn extend(&mut self, other: Self) {
        self.recorded.extend(other.recorded);
        self.follow_up.extend(other.follow_up);
    }
}
