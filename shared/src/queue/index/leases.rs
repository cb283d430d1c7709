//! Renewing, asserting and claiming leases.
//!
//! Invariant: the holder of a lease that a rescue has claimed can neither renew nor settle it.

use std::time::Duration;

use redis::RedisError;
use uuid::Uuid;

use super::{
    HeldLease, Index, IndexState, LeaseToken, MAX_BATCH, Renewed, SETTLED_AT_ONCE, Settlement, millis,
    scripts::{EXPIRED, RENEW, SETTLE},
};
use crate::queue::Shard;

impl Index {
    /// Ends leases claimed by [`Self::claim_expired`].
    pub(in crate::queue) async fn settle_rescued(
        &self,
        shard: &Shard,
        settlements: &[Settlement],
    ) -> Result<(), RedisError> {
        for chunk in settlements.chunks(SETTLED_AT_ONCE) {
            let packed: Vec<_> = chunk.iter().map(Settlement::pack_rescued).collect();
            self.call(&SETTLE, shard).arg(packed.as_flattened()).invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }

    /// Extends leases granted by this shard.
    pub async fn renew(&self, shard: &Shard, lease: Duration, held: &[HeldLease]) -> Result<Renewed, RedisError> {
        self.renew_or_assert(shard, lease, held, false).await
    }

    /// As [`Self::renew`], for leases that the index has lost while the ledger still expects these
    /// runs to end.
    pub(in crate::queue) async fn assert(
        &self,
        shard: &Shard,
        lease: Duration,
        held: &[HeldLease],
    ) -> Result<Renewed, RedisError> {
        self.renew_or_assert(shard, lease, held, true).await
    }

    async fn renew_or_assert(
        &self,
        shard: &Shard,
        lease: Duration,
        held: &[HeldLease],
        asserts: bool,
    ) -> Result<Renewed, RedisError> {
        let mut renewed = Renewed { state: IndexState::Ready, lost: Vec::new(), unheld: Vec::new() };
        for chunk in held.chunks(MAX_BATCH) {
            let mut call = self.call(&RENEW, shard);
            call.arg(millis(lease)).arg(u8::from(asserts));
            for lease in chunk {
                call.arg(lease.id.as_bytes())
                    .arg(lease.token.bytes())
                    .arg(lease.tenant.as_uuid().as_bytes())
                    .arg(millis(lease.held_for));
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
    /// remain until they are [settled](Self::settle_rescued). The token is `None` if the index has
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
