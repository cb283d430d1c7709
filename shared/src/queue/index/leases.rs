//! Renewing, asserting, claiming and settling leases.
//!
//! Invariant: the holder of a lease that a rescue has claimed can neither renew nor settle it.

use std::time::Duration;

use redis::RedisError;
use uuid::Uuid;

use super::{
    Index, MAX_BATCH, millis, packed,
    scripts::{EXPIRED, RENEW, SETTLE},
    status::IndexState,
};
use crate::queue::{
    lease::{Lease, LeaseToken, Settlement},
    shard::Shard,
};

/// Settlements per call: about 1 ms of Redis time, less than a fetch of as many jobs takes.
const SETTLED_AT_ONCE: usize = 250;

/// Result of a renewal.
#[derive(Debug)]
pub struct Renewed {
    /// Whether the index is usable.
    pub state: IndexState,
    /// Held under another token, or claimed by a rescue.
    pub lost: Vec<Uuid>,
    /// Without a holder: settled, rescued, or lost by the index. The ledger decides which.
    pub unheld: Vec<Uuid>,
}

impl Renewed {
    /// Whether the index has renewed this job's lease. An index that was lost confirms none.
    pub(in crate::queue) fn confirms(&self, id: Uuid) -> bool {
        let is_known = matches!(self.state, IndexState::Ready | IndexState::Grace);
        is_known && !self.lost.contains(&id) && !self.unheld.contains(&id)
    }
}

impl Index {
    /// Ends leases of this shard. A lease that is held under another token, or that a rescue has
    /// claimed, is ended only by its holder or by that rescue.
    pub async fn settle(&self, shard: &Shard, settlements: &[Settlement]) -> Result<(), RedisError> {
        for chunk in settlements.chunks(SETTLED_AT_ONCE) {
            let packed: Vec<_> = chunk.iter().map(packed::settlement).collect();
            let mut call = self.call(&SETTLE, shard);
            call.arg(packed.as_flattened()).arg(self.start_cost.as_ms());
            call.invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }

    /// Extends leases of this shard, each with the run time of its handler so far, which is charged
    /// to the tenant where it exceeds the estimate.
    pub async fn renew(
        &self,
        shard: &Shard,
        lease: Duration,
        held: &[(&Lease, Duration)],
    ) -> Result<Renewed, RedisError> {
        self.renew_or_assert(shard, lease, held, false).await
    }

    /// As [`Self::renew`], for leases that the index has lost while the ledger still expects these
    /// runs to end.
    pub(in crate::queue) async fn assert(
        &self,
        shard: &Shard,
        lease: Duration,
        held: &[(&Lease, Duration)],
    ) -> Result<Renewed, RedisError> {
        self.renew_or_assert(shard, lease, held, true).await
    }

    async fn renew_or_assert(
        &self,
        shard: &Shard,
        lease: Duration,
        held: &[(&Lease, Duration)],
        asserts: bool,
    ) -> Result<Renewed, RedisError> {
        let mut renewed = Renewed { state: IndexState::Ready, lost: Vec::new(), unheld: Vec::new() };
        for chunk in held.chunks(MAX_BATCH) {
            let mut call = self.call(&RENEW, shard);
            call.arg(millis(lease)).arg(u8::from(asserts));
            for (lease, ran) in chunk {
                call.arg(lease.id.as_bytes())
                    .arg(lease.token.bytes())
                    .arg(lease.tenant.as_uuid().as_bytes())
                    .arg(millis(*ran));
            }
            let answer: Vec<redis::Value> = call.invoke_async(&mut self.connection()).await?;
            let mut answer = answer.into_iter();
            let (Some(state), Some(lost)) = (answer.next(), answer.next()) else { continue };
            renewed.state = IndexState::parse(&redis::from_redis_value::<String>(state)?);
            let lost: usize = redis::from_redis_value(lost)?;
            let ids = answer.filter_map(|id| Uuid::from_slice(&redis::from_redis_value::<Vec<u8>>(id).ok()?).ok());
            let ids: Vec<Uuid> = ids.collect();
            let (lost, unheld) = ids.split_at(lost.min(ids.len()));
            renewed.lost.extend_from_slice(lost);
            renewed.unheld.extend_from_slice(unheld);
        }
        Ok(renewed)
    }

    /// Claims expired leases, oldest first: their holders can no longer renew or settle them. They
    /// remain until the rescue [settles](Self::settle) them. The token is `None` if the index has
    /// lost the holder.
    pub(in crate::queue) async fn claim_expired(
        &self,
        shard: &Shard,
        limit: usize,
    ) -> Result<Vec<(Uuid, Option<LeaseToken>)>, RedisError> {
        let flat: Vec<Vec<u8>> = self.call(&EXPIRED, shard).arg(limit).invoke_async(&mut self.connection()).await?;
        Ok(flat
            .chunks_exact(2)
            .filter_map(|pair| Some((Uuid::from_slice(&pair[0]).ok()?, LeaseToken::parse(&pair[1]))))
            .collect())
    }
}
