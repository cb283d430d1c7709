//! Whether a lease is still this process's.
//!
//! Invariant: an attempt that was read from the ledger is this lease's only if the lease was held after the read: a rescue claims the
//! lease before it raises the attempt. So a lease is either young enough by this process's own monotonic clock, counted from before it can
//! have begun, or it is renewed after the read and before the run.

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

/// How long ago leases may have begun: counted on the monotonic clock from before they were asked for, or longer.
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

    /// When it will be this span.
    pub(super) fn reaches(self, span: Duration) -> Instant {
        self.from + span.saturating_sub(self.before)
    }
}

/// What a lease is held by.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) token: LeaseToken,
    pub(super) sure_until: Instant,
    pub(super) lasts: Duration,
}

impl Lease {
    /// Whether the lease is so young that it is not in doubt.
    pub fn is_young(&self) -> bool {
        Instant::now() < self.sure_until
    }

    /// Whether the run of a lease that is not young any more may begin: it is renewed now. With an index that cannot say whose it is, it may not.
    pub async fn is_own(&self, index: &Index) -> Result<bool, redis::RedisError> {
        let asked = Instant::now();
        let Renewed { state, lost, unheld } =
            index.renew(&self.shard, self.lasts, &[self.held(Duration::ZERO)]).await?;
        let is_own = matches!(state, IndexState::Ready | IndexState::Grace) && lost.is_empty() && unheld.is_empty();
        // An answer that took as long as a lease says nothing any more.
        Ok(is_own && asked.elapsed() < self.lasts)
    }
}

impl Consumer {
    /// Extends leases and returns those that are lost. What the index has forgotten is asserted if the ledger still waits for that run, and
    /// `may_assert` says that its end is not under way to the index.
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
            tracing::warn!(%shard, jobs = asserted.len(), "the index had forgotten leases; their holder asserts them");
            lost.extend(self.index.assert(shard, self.lease, &asserted).await?.lost);
        }
        Ok(lost)
    }

    /// Which of these runs, by id and attempt, the ledger no longer waits for: they were cancelled, or taken for dead.
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

    /// Renews what was leased so long ago that it may be another's, after its rows were read. Returns how old it is now, and what is not this
    /// process's any more.
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
