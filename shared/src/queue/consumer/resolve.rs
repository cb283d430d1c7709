//! The ledger's word on what the index proposed: what is to be run is kept, the rest is settled.

use foldhash::HashMap;
use uuid::Uuid;

use super::{
    Consumer, FetchError, Fetched,
    hold::{Age, Hold},
    rows::Row,
};
use crate::queue::{LeaseToken, Shard, expiry, index::FetchedIds};

/// The clocks of Redis, which promotes jobs, and of PostgreSQL differ a little.
const TOLERANCE_MS: i64 = 1_000;

impl Consumer {
    /// Judges what is still this process's. Nobody has renewed it since it was leased; in the second half of its time it must be.
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

    /// Keeps what is to be run now, in the order of the index, and settles the rest.
    async fn judge(&self, shard: &Shard, hold: Hold, fetched: FetchedIds, rows: &mut HashMap<Uuid, Row>) -> Fetched {
        let (FetchedIds { state, ids, next, now_ms }, token) = (fetched, hold.token);
        // The rows are of now, and a grant may have been under way for long.
        let now_ms = self.index.now_ms(now_ms);
        let (mut leases, mut rest, mut expired) = (Vec::with_capacity(ids.len()), Vec::new(), Vec::new());
        for leased in &ids {
            match rows.remove(&leased.id) {
                // It waits for other jobs: the index should not know it yet.
                Some(row) if row.waits_for != 0 => rest.push(leased.unrun(token, None)),
                Some(row) if !row.is_final && row.is_expired() => {
                    expired.push(leased.id);
                    rest.push(leased.unrun(token, None));
                }
                Some(row) if !row.is_final && row.due_in_ms() <= TOLERANCE_MS => {
                    leases.push(row.into_lease(shard, hold, leased.priority));
                }
                // By the clock that promotes it: by the other it would be due there at once, and come again and again.
                Some(row) if !row.is_final => {
                    rest.push(leased.unrun(token, Some((now_ms + row.due_in_ms(), leased.priority))));
                }
                _ => rest.push(leased.unrun(token, None)),
            }
        }
        if !rest.is_empty()
            && let Err(error) = self.index.settle(shard, &rest).await
        {
            // Their leases run out. Those of the others must not, so they are not given up with them.
            tracing::debug!(%shard, %error, "leases of jobs that are not to run could not be settled");
        }
        if !expired.is_empty() {
            let consumer = self.clone();
            // Not waited for: nobody renews the other leases before they are returned.
            tokio::spawn(async move { consumer.discard(&expired).await });
        }
        Fetched { state, leases, taken: ids.len(), next }
    }

    /// Their time is over, so they are not run. If the ledger cannot be told now, the scheduler's sweep does it.
    async fn discard(&self, expired: &[Uuid]) {
        match expiry::discard(&self.db, expired).await {
            Ok((_, aftermath)) => aftermath.announce(&self.index).await,
            Err(error) => tracing::debug!(jobs = expired.len(), %error, "expired jobs could not be discarded"),
        }
    }
}
