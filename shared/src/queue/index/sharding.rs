//! Which shard a call goes to.
//!
//! Invariant: what is about one tenant goes to that tenant's shard alone; a lease is ended and renewed in the shard it came from. A queue
//! that is not split pays nothing for this: one look into an empty map.

use std::future::Future;

use futures::future::join_all;
use redis::RedisError;

use super::Index;
use crate::{
    queue::{QueueName, Shard},
    tenancy::TenantId,
};

/// Items of one call, by shard.
pub(super) enum Split<T> {
    /// All of them go to the only shard.
    Whole(Shard),
    /// Shards with what goes to them, in its order; those that get nothing are left out.
    Parts(Vec<(Shard, Vec<T>)>),
}

impl Index {
    /// All shards of a queue, by this process's configuration.
    pub fn shards(&self, queue: &QueueName) -> impl Iterator<Item = Shard> + use<> {
        self.shards.shards(queue)
    }

    /// The shard of a tenant's jobs.
    pub(in crate::queue) fn shard_of(&self, queue: &QueueName, tenant: TenantId) -> Shard {
        self.shards.shard_of(queue, tenant)
    }

    /// Into how many shards this process takes a queue to be split.
    pub(in crate::queue) fn shard_count(&self, queue: &QueueName) -> u16 {
        self.shards.of(queue)
    }

    pub(super) fn split<T: Copy>(&self, queue: &QueueName, items: &[T], tenant: impl Fn(&T) -> TenantId) -> Split<T> {
        let count = self.shards.of(queue);
        if count == 1 {
            return Split::Whole(Shard::whole(queue.clone()));
        }
        let mut parts: Vec<(Shard, Vec<T>)> = self.shards(queue).map(|shard| (shard, Vec::new())).collect();
        for item in items {
            let number = Shard::number_of(tenant(item), count);
            parts[usize::from(number)].1.push(*item);
        }
        parts.retain(|(_, items)| !items.is_empty());
        Split::Parts(parts)
    }
}

/// Waits for the calls to all shards, so that one in trouble keeps nothing from the others; then the first error, if there is one.
pub(super) async fn all<F>(calls: impl IntoIterator<Item = F>) -> Result<(), RedisError>
where
    F: Future<Output = Result<(), RedisError>>,
{
    join_all(calls).await.into_iter().collect()
}
