//! Changes limits, and keeps the index's copy consistent with the ledger.
//!
//! Invariant: the copy is corrected by compare-and-set: the index is read before the ledger, and
//! only values that are still unchanged are replaced, so a correction never undoes a change that
//! was pushed meanwhile.

use std::collections::HashMap;

use serde::Serialize;

use super::{
    QueueScope,
    ledger::{self, AllLimits, LimitRow},
};
use crate::{
    db::SystemDb,
    queue::{
        Index, QueueName, Shard,
        index::{LimitChange, status::IndexStatus},
    },
    tenancy::TenantId,
};

/// Why limits could not be changed or compared.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Redis did not answer. A change is committed nevertheless, and the leading scheduler pushes
    /// it to the index.
    #[error("index: {0}")]
    Index(#[from] redis::RedisError),
    /// Redis did not answer for one shard; the entries of the others were compared.
    #[error("{shard}: index: {error}")]
    Shard {
        /// The first shard that failed.
        shard: Shard,
        /// Why.
        error: redis::RedisError,
    },
    /// PostgreSQL did not answer; nothing was changed.
    #[error("ledger: {0}")]
    Ledger(#[from] sqlx::Error),
}

/// A queue as shown to operators.
#[derive(Clone, Debug, Serialize)]
pub struct QueueOverview {
    /// The queue.
    pub queue: QueueName,
    /// Whether the ledger has the queue paused.
    pub paused: bool,
    /// Number of shards, as configured for this process.
    pub shards: u16,
    /// Status in the index; `None` if Redis is unavailable.
    pub index: Option<IndexStatus>,
    /// Jobs that a worker could start now.
    pub available: Option<u64>,
}

/// Access to the limits in both stores. Cheap to clone.
#[derive(Clone)]
pub struct Limiter {
    db: SystemDb,
    index: Index,
}

impl Limiter {
    /// A limiter over both stores.
    pub const fn new(db: SystemDb, index: Index) -> Self {
        Self { db, index }
    }

    /// Pauses or resumes a queue.
    pub async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), LimitError> {
        ledger::pause_queue(&self.db, queue, paused).await?;
        for shard in self.index.shards(queue) {
            self.index.pause(&shard, paused, None).await?;
        }
        Ok(())
    }

    /// Changes a tenant's row for `scope`, and pushes the resulting limits to those of `queues`
    /// that the scope covers. A replaced row keeps none of its earlier values; replacing it with an
    /// empty `row` deletes it.
    pub async fn limit_tenant(
        &self,
        tenant: TenantId,
        scope: &QueueScope,
        row: &LimitRow,
        anew: bool,
        queues: &[QueueName],
    ) -> Result<(), LimitError> {
        if anew && *row == LimitRow::default() {
            ledger::forget(&self.db, tenant, scope).await?;
        } else {
            ledger::set(&self.db, tenant, scope, row, anew).await?;
        }
        let table = AllLimits::read(&self.db).await?;
        let concerned = |queue: &&QueueName| match scope {
            QueueScope::All => true,
            QueueScope::One(only) => only == *queue,
        };
        for queue in queues.iter().filter(concerned) {
            self.index.limit(queue, tenant, table.limits(tenant, queue).pack()).await?;
        }
        Ok(())
    }

    /// Corrects the index's copy to match the ledger; returns the number of wrong entries. A
    /// failing shard does not hold up the others.
    pub async fn reconcile(&self, queues: &[QueueName]) -> Result<u64, LimitError> {
        let (mut copies, mut outcome) = (Vec::with_capacity(queues.len()), Ok(()));
        for shard in queues.iter().flat_map(|queue| self.index.shards(queue)) {
            match self.copy_of(&shard).await {
                Ok((was_paused, copy)) => copies.push((shard, was_paused, copy)),
                Err(error) => outcome = outcome.and(Err(LimitError::Shard { shard, error })),
            }
        }
        let table = AllLimits::read(&self.db).await?;
        let mut corrected = 0;
        for (shard, was_paused, copy) in copies {
            match self.correct(&table, &shard, was_paused, copy).await {
                Ok(entries) => corrected += entries,
                Err(error) => outcome = outcome.and(Err(LimitError::Shard { shard, error })),
            }
        }
        outcome.map(|()| corrected)
    }

    /// Whether the index has the shard's queue paused, and its limits by tenant.
    async fn copy_of(&self, shard: &Shard) -> Result<(bool, HashMap<TenantId, String>), redis::RedisError> {
        Ok((self.index.shard_status(shard).await?.paused, self.index.limits(shard).await?))
    }

    async fn correct(
        &self,
        table: &AllLimits,
        shard: &Shard,
        was_paused: bool,
        copy: HashMap<TenantId, String>,
    ) -> Result<u64, redis::RedisError> {
        let paused = table.is_paused(shard.queue());
        if paused != was_paused {
            self.index.pause(shard, paused, Some(was_paused)).await?;
        }
        let changes = changes(table, shard, copy);
        self.index.limit_in(shard, &changes).await?;
        Ok(changes.len() as u64 + u64::from(paused != was_paused))
    }

    /// An overview of queues; without data of the index while Redis is unavailable.
    pub async fn overview(&self, queues: &[QueueName]) -> Result<Vec<QueueOverview>, LimitError> {
        let table = AllLimits::read(&self.db).await?;
        let mut overviews = Vec::with_capacity(queues.len());
        for queue in queues {
            let index = self.index.status(queue).await.ok();
            let available = self.index.depth(queue).await.ok().map(|depth| depth.available);
            let (paused, shards) = (table.is_paused(queue), self.index.shard_count(queue));
            overviews.push(QueueOverview { queue: queue.clone(), paused, shards, index, available });
        }
        Ok(overviews)
    }
}

/// The corrections that a shard's copy needs.
fn changes(table: &AllLimits, shard: &Shard, mut copy: HashMap<TenantId, String>) -> Vec<LimitChange> {
    let mut changes = Vec::new();
    for tenant in table.tenants().into_iter().filter(|tenant| shard.holds(*tenant)) {
        let (is, ought) = (copy.remove(&tenant).unwrap_or_default(), table.limits(tenant, shard.queue()).pack());
        if is != ought {
            changes.push((tenant, ought, Some(is)));
        }
    }
    changes.extend(copy.into_iter().map(|(tenant, is)| (tenant, String::new(), Some(is))));
    changes
}
