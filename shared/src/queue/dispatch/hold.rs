//! Whether this process still holds a lease.
//!
//! Invariant: an attempt number read from the ledger belongs to this lease only if the lease was
//! still held after the read, because a rescue claims the lease before it raises the attempt. So a
//! lease is either young enough by this process's own monotonic clock, counted from before the
//! lease can have started, or it is renewed after the read and before the run.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashMap;
use uuid::Uuid;

use super::{Consumer, FetchError, Lease, rows::Row};
use crate::{
    queue::{HeldLease, Index, IndexState, LeaseToken, Renewed, Shard, index::LeasedId},
    tenancy::TenantId,
};

/// Upper bound on the age of leases, counted on the monotonic clock from before they were
/// requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    from: Instant,
    before: Duration,
}

impl Default for Age {
    fn default() -> Self {
        Self { from: Instant::now(), before: Duration::ZERO }
    }
}

impl Age {
    pub(super) const fn more(self, by: Duration) -> Self {
        Self { from: self.from, before: self.before.saturating_add(by) }
    }

    pub(super) fn is_beyond(self, span: Duration) -> bool {
        self.before.saturating_add(self.from.elapsed()) > span
    }

    /// When the age reaches this span.
    pub(super) fn reaches(self, span: Duration) -> Instant {
        self.from + span.saturating_sub(self.before)
    }
}

/// Token and validity of a lease.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) token: LeaseToken,
    pub(super) sure_until: Instant,
    pub(super) lasts: Duration,
}

impl Lease {
    /// Whether the lease is so young that it is certainly held.
    pub fn is_young(&self) -> bool {
        Instant::now() < self.sure_until
    }

    /// Renews a lease that is no longer young, and returns whether its run may start. It may not if
    /// the index cannot confirm the holder.
    pub async fn is_own(&self, index: &Index) -> Result<bool, redis::RedisError> {
        let asked = Instant::now();
        let Renewed { state, lost, unheld } =
            index.renew(&self.shard, self.lasts, &[self.held(Duration::ZERO)]).await?;
        let is_own = matches!(state, IndexState::Ready | IndexState::Grace) && lost.is_empty() && unheld.is_empty();
        // A response that took as long as the lease lasts proves nothing.
        Ok(is_own && asked.elapsed() < self.lasts)
    }
}

impl Consumer {
    /// Extends leases and returns the lost ones. A lease that the index has forgotten is asserted
    /// if the ledger still expects that run and `may_assert` confirms that its end is not on its
    /// way to the index.
    pub async fn renew(
        &self,
        shard: &Shard,
        held: &[HeldLease],
        may_assert: impl Fn(Uuid, LeaseToken) -> bool,
    ) -> Result<Vec<Uuid>, FetchError> {
        let Renewed { mut lost, unheld, .. } = self.index.renew(shard, self.lease, held).await?;
        if unheld.is_empty() {
            return Ok(lost);
        }
        let forgotten = held.iter().filter(|lease| unheld.contains(&lease.id));
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) = forgotten.clone().map(|lease| (lease.id, lease.attempt)).unzip();
        let unwanted = self.unwanted(&ids, &attempts).await.map_err(|error| FetchError::Ledger(Arc::new(error)))?;
        let is_asserted = |lease: &&HeldLease| !unwanted.contains(&lease.id) && may_assert(lease.id, lease.token);
        let asserted: Vec<HeldLease> = forgotten.filter(is_asserted).copied().collect();
        lost.extend(unwanted);
        if !asserted.is_empty() {
            tracing::warn!(%shard, jobs = asserted.len(), "the index had forgotten leases; asserting them");
            lost.extend(self.index.assert(shard, self.lease, &asserted).await?.lost);
        }
        Ok(lost)
    }

    /// Which of these runs, by id and attempt, the ledger no longer expects: the job is final, or
    /// its attempt was raised.
    pub async fn unwanted(&self, ids: &[Uuid], attempts: &[i32]) -> Result<Vec<Uuid>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select i.id as "id!" from unnest($1::uuid[], $2::int4[]) as i (id, attempt)
               where not exists (select from jobs j where j.id = i.id and j.attempt = i.attempt
                                 and j.state not in ('completed', 'cancelled', 'discarded'))"#,
            ids,
            attempts
        )
        .fetch_all(self.db.pool())
        .await
    }

    /// Renews leases that are so old that another process may hold them, after their rows were
    /// read. Returns their new age, and the jobs that this process no longer holds.
    pub(super) async fn renew_old(
        &self,
        shard: &Shard,
        token: LeaseToken,
        ids: &[LeasedId],
        rows: &HashMap<Uuid, Row>,
    ) -> Result<(Age, HashSet<Uuid>), redis::RedisError> {
        let age = Age::default();
        let held: Vec<HeldLease> = ids
            .iter()
            .filter_map(|leased| {
                let row = rows.get(&leased.id)?;
                let tenant = TenantId::new(row.tenant_id);
                Some(HeldLease { id: row.id, token, tenant, attempt: row.attempt, held_for: Duration::ZERO })
            })
            .collect();
        let Renewed { state, lost, unheld } = self.index.renew(shard, self.lease, &held).await?;
        let lost = match state {
            IndexState::Ready | IndexState::Grace => lost.into_iter().chain(unheld).collect(),
            IndexState::Stale | IndexState::Late => held.iter().map(|lease| lease.id).collect(),
        };
        Ok((age, lost))
    }
}
