//! The ledger's decision on jobs that the index proposed: leases of jobs that must run are kept,
//! the others are settled.

use foldhash::HashMap;
use uuid::Uuid;

use super::{
    Consumer, FetchError, Fetched,
    hold::{Age, Hold},
    rows::Row,
};
use crate::queue::{LeaseToken, Shard, index::FetchedIds, ledger::expiry};

/// Allowed difference between the clock of Redis, which promotes jobs, and that of PostgreSQL.
const TOLERANCE_MS: i64 = 1_000;

impl Consumer {
    /// Keeps the leases that this process still holds. They were not renewed since the fetch, so
    /// after half of the lease duration they are renewed here.
    pub(super) async fn keep(
        &self,
        shard: &Shard,
        token: LeaseToken,
        mut fetched: FetchedIds,
        rows: &mut HashMap<Uuid, Row>,
        mut age: Age,
    ) -> Result<Fetched, FetchError> {
        let taken = fetched.ids.len();
        if taken > 0 && age.is_beyond(self.lease / 2) {
            let (renewed, lost) = self.renew_old(shard, token, &fetched.ids, rows).await?;
            fetched.ids.retain(|leased| !lost.contains(&leased.id));
            age = renewed;
        }
        let hold = Hold { token, sure_until: age.reaches(self.lease / 2), lasts: self.lease };
        Ok(Fetched { taken, ..self.judge(shard, hold, fetched, rows).await })
    }

    /// Keeps the leases of jobs that must run now, in the order of the index, and settles the
    /// others.
    async fn judge(&self, shard: &Shard, hold: Hold, fetched: FetchedIds, rows: &mut HashMap<Uuid, Row>) -> Fetched {
        let (FetchedIds { state, ids, next, now_ms }, token) = (fetched, hold.token);
        // The rows are current, but a direct dispatch may have been in transit for long.
        let now_ms = self.index.now_ms(now_ms);
        let (mut leases, mut rest, mut expired) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        for leased in &ids {
            match rows.remove(&leased.id) {
                // It waits for other jobs, so it should not be in the index yet.
                Some(row) if row.waits_for != 0 => rest.push(leased.unrun(token, None)),
                Some(row) if !row.is_final && row.is_expired() => {
                    expired.push(leased.id);
                    rest.push(leased.unrun(token, None));
                }
                Some(row) if !row.is_final && row.due_in_ms() <= TOLERANCE_MS => {
                    leases.push(row.into_lease(shard, hold, leased.priority));
                }
                // The time is given in the clock of Redis, which promotes the job: by PostgreSQL's
                // clock it could be due there at once, and be proposed again and again.
                Some(row) if !row.is_final => {
                    rest.push(leased.unrun(token, Some((now_ms + row.due_in_ms(), leased.priority))));
                }
                _ => rest.push(leased.unrun(token, None)),
            }
        }
        if !rest.is_empty()
            && let Err(error) = self.index.settle(shard, &rest).await
        {
            // These leases will expire. The kept leases must not, so they are returned despite the
            // error.
            tracing::debug!(%shard, %error, "failed to settle leases of jobs that must not run");
        }
        if !expired.is_empty() {
            let consumer = self.clone();
            // Not awaited: the other leases are not renewed before they are returned.
            tokio::spawn(async move { consumer.discard(&expired).await });
        }
        Fetched { state, leases, taken: ids.len(), next }
    }

    /// Discards jobs that expired before a run. If the ledger cannot be written now, the
    /// scheduler's sweep discards them.
    async fn discard(&self, expired: &[Uuid]) {
        match expiry::discard(&self.db, expired).await {
            Ok((_, follow_up)) => follow_up.announce(&self.index).await,
            Err(error) => tracing::debug!(jobs = expired.len(), %error, "failed to discard expired jobs"),
        }
    }
}
