//! Releases jobs that were leased by fetches whose responses never arrived: the jobs have not
//! started, so this costs no attempt.
//!
//! Invariant: the response to a failed fetch is never used, and Redis refuses a fetch that it
//! processes only after the caller's time-out. So no process uses the leases under the token of a
//! failed fetch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::Consumer;
use crate::queue::{
    job::Priority,
    lease::{LeaseToken, Settlement},
    ledger::rows,
    shard::Shard,
    store_error::StoreError,
};

/// Tokens kept per shard, the first ones: fetches before an outage matter, those during it lease
/// nothing.
const REMEMBERED: usize = 64;

/// Tokens of failed fetches, by shard. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Unanswered(Arc<Mutex<HashMap<Shard, Vec<LeaseToken>>>>);

impl Unanswered {
    pub(super) fn note(&self, shard: &Shard, tokens: impl IntoIterator<Item = LeaseToken>) {
        let mut shards = self.lock();
        let noted = shards.entry(shard.clone()).or_default();
        noted.extend(tokens);
        noted.truncate(REMEMBERED);
    }

    fn take(&self, shard: &Shard) -> Vec<LeaseToken> {
        let mut shards = self.lock();
        if shards.is_empty() { Vec::new() } else { shards.remove(shard).unwrap_or_default() }
    }

    /// A panic while the lock is held leaves the map consistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<Shard, Vec<LeaseToken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consumer {
    /// After a fetch that was answered: releases, in a separate task, the jobs leased by earlier
    /// fetches whose responses were lost.
    pub(super) fn recover(&self, shard: &Shard) {
        let tokens = self.unanswered.take(shard);
        if tokens.is_empty() {
            return;
        }
        let (consumer, shard) = (self.clone(), shard.clone());
        tokio::spawn(async move {
            match consumer.release_all(&shard, &tokens).await {
                Ok(0) => {}
                Ok(jobs) => tracing::info!(%shard, jobs, "released jobs of fetches that received no response"),
                Err(error) => {
                    tracing::debug!(%shard, %error, "failed to release jobs of fetches that received no response");
                    consumer.unanswered.note(&shard, tokens);
                }
            }
        });
    }

    async fn release_all(&self, shard: &Shard, tokens: &[LeaseToken]) -> Result<usize, StoreError> {
        let (mut cursor, mut released) = (0, 0);
        loop {
            let (next, held) = self.index.held_under(shard, tokens, cursor).await?;
            let ids: Vec<Uuid> = held.iter().map(|(id, _)| *id).collect();
            let rows = rows::read(&self.connections, &ids).await?;
            let end = |&(id, token): &(Uuid, LeaseToken)| {
                let waiting = rows.get(&id).filter(|row| !row.is_final && row.waits_for == 0);
                let again = waiting.map(|row| (row.run_at.timestamp_millis(), Priority::from_ledger(row.priority)));
                Settlement { id, token, ran: None, again, rescued: false }
            };
            let ends: Vec<Settlement> = held.iter().map(end).collect();
            self.index.settle(shard, &ends).await?;
            released += ends.len();
            cursor = next;
            if cursor == 0 {
                return Ok(released);
            }
        }
    }
}
