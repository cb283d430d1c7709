//! Publishes job changes made outside of the index: in the ledger, or by a run.
//!
//! Invariant: a notification is a hint; a follower reads the job again. Without followers a call
//! costs one lookup of an empty key.

use redis::RedisError;
use uuid::Uuid;

use super::{
    Index, MAX_BATCH,
    scripts::ANNOUNCE,
    sharding::{Split, all},
};
use crate::{
    queue::{QueueName, Shard},
    tenancy::TenantId,
};

impl Index {
    /// Notifies followers of these jobs that a visible property changed.
    pub(in crate::queue) async fn announce(
        &self,
        queue: &QueueName,
        jobs: &[(Uuid, TenantId)],
    ) -> Result<(), RedisError> {
        match self.split(queue, jobs, |(_, tenant)| *tenant) {
            Split::Whole(shard) => self.announce_in(&shard, jobs).await,
            Split::Parts(parts) => all(parts.iter().map(|(shard, jobs)| self.announce_in(shard, jobs))).await,
        }
    }

    pub(in crate::queue) async fn announce_in(
        &self,
        shard: &Shard,
        jobs: &[(Uuid, TenantId)],
    ) -> Result<(), RedisError> {
        for chunk in jobs.chunks(MAX_BATCH) {
            let mut call = self.call(&ANNOUNCE, shard);
            for (id, _) in chunk {
                call.arg(id.as_bytes());
            }
            call.invoke_async::<()>(&mut self.connection()).await?;
        }
        Ok(())
    }
}
