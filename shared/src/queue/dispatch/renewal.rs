//! Whether this process still holds a lease.
//!
//! Invariant: an attempt number read from the ledger belongs to this lease only if the lease was
//! still held after the read, because a rescue claims the lease before it raises the attempt. So a
//! lease is either young enough by this process's own monotonic clock, counted from before the
//! lease can have started, or it is renewed after the read and before the run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{Consumer, resolve::Decision};
use crate::queue::{
    index::{Index, leases::Renewed},
    lease::{Lease, LeaseToken},
    ledger::rows,
    shard::Shard,
    store_error::StoreError,
};

impl Lease {
    /// Renews a lease that is no longer young, and returns whether its run may start. It may not if
    /// the index cannot confirm the holder.
    pub async fn is_own(&self, index: &Index) -> Result<bool, redis::RedisError> {
        let called_at = Instant::now();
        let renewed = index.renew(&self.shard, self.lasts, &[(self, Duration::ZERO)]).await?;
        // A response that took as long as the lease lasts proves nothing.
        Ok(renewed.confirms(self.id) && called_at.elapsed() < self.lasts)
    }
}

impl Consumer {
    /// Extends leases, each with the run time of its handler so far, and returns the lost ones. A
    /// lease that the index has forgotten is asserted if the ledger still expects that run and
    /// `may_assert` confirms that its end is not on its way to the index.
    pub async fn renew(
        &self,
        shard: &Shard,
        held: &[(Arc<Lease>, Duration)],
        may_assert: impl Fn(Uuid, LeaseToken) -> bool,
    ) -> Result<Vec<Uuid>, StoreError> {
        let held: Vec<(&Lease, Duration)> = held.iter().map(|(lease, ran)| (&**lease, *ran)).collect();
        let Renewed { mut lost, unheld, .. } = self.index.renew(shard, self.lease, &held).await?;
        if unheld.is_empty() {
            return Ok(lost);
        }
        let forgotten: Vec<(&Lease, Duration)> =
            held.into_iter().filter(|(lease, _)| unheld.contains(&lease.id)).collect();
        let runs: Vec<(Uuid, i32)> = forgotten.iter().map(|(lease, _)| (lease.id, lease.attempt)).collect();
        let unexpected = self.unexpected_runs(&runs).await?;
        let may_assert =
            |(lease, _): &(&Lease, Duration)| !unexpected.contains(&lease.id) && may_assert(lease.id, lease.token);
        let asserted: Vec<(&Lease, Duration)> = forgotten.into_iter().filter(may_assert).collect();
        lost.extend(unexpected.iter());
        if !asserted.is_empty() {
            tracing::warn!(%shard, jobs = asserted.len(), "the index had forgotten leases; asserting them");
            lost.extend(self.index.assert(shard, self.lease, &asserted).await?.lost);
        }
        Ok(lost)
    }

    /// Which of these runs, by id and attempt, the ledger no longer expects: the job is final, or
    /// its attempt was raised.
    pub async fn unexpected_runs(&self, runs: &[(Uuid, i32)]) -> Result<Vec<Uuid>, sqlx::Error> {
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) = runs.iter().copied().unzip();
        rows::unexpected_runs(&self.db, &ids, &attempts).await
    }

    /// Renews leases that are so old that another process may hold them, after their rows were
    /// read, and drops those that this process no longer holds.
    pub(super) async fn keep_own(
        &self,
        shard: &Shard,
        leases: &mut Vec<(Lease, Decision)>,
    ) -> Result<(), redis::RedisError> {
        let sure_until = Instant::now() + self.lease / 2;
        let held: Vec<(&Lease, Duration)> = leases.iter().map(|(lease, _)| (lease, Duration::ZERO)).collect();
        let renewed = self.index.renew(shard, self.lease, &held).await?;
        leases.retain_mut(|(lease, _)| {
            lease.sure_until = sure_until;
            renewed.confirms(lease.id)
        });
        Ok(())
    }
}
