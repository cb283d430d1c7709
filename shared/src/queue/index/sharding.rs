//! Selects the shard that serves a call.
//!
//! Invariant: a call about one tenant goes to that tenant's shard alone; a lease is renewed and
//! ended in the shard that granted it. For a queue that is not split this costs one lookup in an
//! empty map.

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
    /// The queue has one shard, which gets all items.
    Whole(Shard),
    /// Shards with their items in order; shards without items are omitted.
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

    /// The queue's number of shards, by this process's configuration.
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

/// Waits for the calls to all shards, so that a failing shard does not affect the others; then
/// returns the first error, if any.
pub(super) async fn all<F>(calls: impl IntoIterator<Item = F>) -> Result<(), RedisError>
where
    F: Future<Output = Result<(), RedisError>>,
{
    join_all(calls).await.into_iter().collect()
}
