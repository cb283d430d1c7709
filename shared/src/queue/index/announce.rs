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

/// A change of a followed job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// A worker leased it.
    Leased,
    /// Its lease ended and it waits again: a retry, a snooze, a release or a rescue.
    WaitsAgain,
    /// Its lease ended and it is final.
    Finished,
    /// It was cancelled while waiting or running.
    Cancelled,
    /// Another visible property changed: its progress or dependencies, or it was redriven or
    /// expired.
    Updated,
}

impl JobChange {
    /// Parses a message of the events channel: 16 bytes of id, then one byte for the change.
    pub fn parse(message: &[u8]) -> Option<(Uuid, Self)> {
        let (id, happened) = message.split_at_checked(16)?;
        let change = match happened {
            b"l" => Self::Leased,
            b"a" => Self::WaitsAgain,
            b"f" => Self::Finished,
            b"c" => Self::Cancelled,
            b"u" => Self::Updated,
            _ => return None,
        };
        Some((Uuid::from_slice(id).ok()?, change))
    }
}

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
