//! The ledger's decision on jobs that the index proposed: leases of jobs that must run are kept,
//! the others are settled.

use std::{sync::Arc, time::Instant};

use foldhash::HashMap;
use redis::RedisError;
use uuid::Uuid;

use super::{Consumer, Fetched};
use crate::queue::{
    index::dispatch::Proposed,
    lease::{LeasedRef, Settlement},
    ledger::{
        expiry,
        rows::{self, Row},
    },
    shard::Shard,
    store_error::StoreError,
};

/// Allowed difference between the clock of Redis, which promotes jobs, and that of PostgreSQL.
const TOLERANCE_MS: i64 = 1_000;

/// What happens to a proposed job.
pub(super) enum Decision {
    Run,
    /// It is not due; it waits until this time, in Unix milliseconds of Redis's clock: by
    /// PostgreSQL's clock it could be due at once in Redis, and be proposed again and again.
    Later(i64),
    /// It expired before a run.
    Discard,
    /// It is final, or waits for other jobs and should not be in the index yet.
    Drop,
}

impl Decision {
    fn of(row: &Row, now_ms: i64) -> Self {
        if row.is_final || row.waits_for != 0 {
            Self::Drop
        } else if row.is_expired() {
            Self::Discard
        } else if row.due_in_ms() <= TOLERANCE_MS {
            Self::Run
        } else {
            Self::Later(now_ms + row.due_in_ms())
        }
    }
}

impl Consumer {
    /// Reads the rows of the proposed jobs and decides which leases are kept. Returns one result
    /// per proposal, in the same order.
    pub async fn resolve(&self, proposals: Vec<Result<Proposed, RedisError>>) -> Vec<Result<Fetched, StoreError>> {
        let ids: Vec<Uuid> =
            proposals.iter().flatten().flat_map(|proposed| &proposed.leased).map(|leased| leased.id).collect();
        let mut rows = rows::read(&self.connections, &ids).await.map_err(Arc::new);
        let mut results = Vec::with_capacity(proposals.len());
        for proposed in proposals {
            results.push(match (proposed, &mut rows) {
                (Ok(proposed), Ok(rows)) => self.decide(proposed, rows).await,
                (Ok(proposed), Err(error)) => Err(self.release(&proposed, error).await),
                (Err(error), _) => Err(error.into()),
            });
        }
        results
    }

    /// Keeps the leases of jobs that must run now, in the order of the index, and settles the
    /// others.
    async fn decide(&self, proposed: Proposed, rows: &mut HashMap<Uuid, Row>) -> Result<Fetched, StoreError> {
        let Proposed { shard, state, leased, next, at_ms, sure_until } = proposed;
        // The rows are current, but a direct dispatch may have been in transit for long.
        let now_ms = self.index.now_ms(at_ms);
        let (mut decided, mut rest) = (Vec::with_capacity(leased.len()), Vec::new());
        for one in &leased {
            match rows.remove(&one.id) {
                Some(row) => {
                    let decision = Decision::of(&row, now_ms);
                    decided.push((row.into_lease(&shard, one, sure_until, self.lease), decision));
                }
                None => rest.push(one.settle_unrun(None)),
            }
        }
        // Leases are not renewed between the fetch and this point.
        if Instant::now() >= sure_until {
            self.keep_own(&shard, &mut decided).await?;
        }
        let (mut leases, mut expired) = (Vec::with_capacity(decided.len()), Vec::new());
        for (lease, decision) in decided {
            let again = match decision {
                Decision::Run => {
                    leases.push(lease);
                    continue;
                }
                Decision::Later(run_at_ms) => Some((run_at_ms, lease.priority)),
                Decision::Discard => {
                    expired.push(lease.id);
                    None
                }
                Decision::Drop => None,
            };
            rest.push(Settlement { again, ..lease.release() });
        }
        self.settle_rest(&shard, &rest).await;
        self.discard(expired);
        Ok(Fetched { state, leases, taken: leased.len(), next })
    }

    /// The kept leases are returned even if this fails: they must not expire. Those that could not
    /// be settled do.
    async fn settle_rest(&self, shard: &Shard, rest: &[Settlement]) {
        if !rest.is_empty()
            && let Err(error) = self.index.settle(shard, rest).await
        {
            tracing::debug!(%shard, %error, "failed to settle leases of jobs that must not run");
        }
    }

    /// Discards jobs that expired before a run, in a task of its own: the other leases are not
    /// renewed before they are returned. If the ledger cannot be written now, the scheduler's sweep
    /// discards them.
    fn discard(&self, expired: Vec<Uuid>) {
        if expired.is_empty() {
            return;
        }
        let (db, index) = (self.db.clone(), self.index.clone());
        tokio::spawn(async move {
            match expiry::discard(&db, &expired).await {
                Ok((_, follow_up)) => follow_up.announce(&index).await,
                Err(error) => tracing::debug!(jobs = expired.len(), %error, "failed to discard expired jobs"),
            }
        });
    }

    /// Releases proposed jobs whose rows could not be read.
    async fn release(&self, proposed: &Proposed, reason: &Arc<sqlx::Error>) -> StoreError {
        let released: Vec<_> = proposed.leased.iter().map(LeasedRef::release).collect();
        match self.index.settle(&proposed.shard, &released).await {
            Ok(()) => StoreError::Ledger(Arc::clone(reason)),
            Err(error) => error.into(),
        }
    }
}
