//! The sample of the flows: a page of each, continued by the next sample. Some of the jobs in it are
//! looked up in the ledger: a push that arrives after the cancellation of its job leaves an entry,
//! which waits for as long as its tenant is paused.

use std::{collections::HashMap, mem};

use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use super::{Checker, Findings, ledger::UNDER_WAY};
use crate::queue::{
    QueueName,
    index::{CheckMode, Member},
    ledger::rows,
    repair::reconcile::ReconcileError,
};

/// About this many jobs are looked up in one sample.
const MAX_LOOKED_UP: usize = 1_000;

impl Checker {
    /// Checks a page of each flow, and whether jobs in these pages have ended in the ledger.
    pub(super) async fn sample_flows(
        &mut self,
        queue: &QueueName,
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let before = self.flow_cursors.remove(queue).unwrap_or_default();
        let (mut after, mut waiting) = (HashMap::new(), Vec::new());
        let mut tenants = mem::take(&mut found.tenants);
        // Each tenant's turn comes, however many there are.
        tenants.shuffle(&mut rand::rng());
        for (shard, tenant) in tenants {
            let from = before.get(&tenant).copied().unwrap_or_default();
            let page = self.index.check_page(&shard, "flow", mode, from, &[tenant.as_uuid().as_bytes()]).await?;
            found.add(&shard, page.broken);
            let mut next = from;
            if waiting.len() < MAX_LOOKED_UP {
                next = page.cursor;
                waiting.extend(page.seen);
            }
            after.insert(tenant, next);
        }
        self.flow_cursors.insert(queue.clone(), after);
        self.check_ended(queue, &waiting, mode, found).await
    }

    async fn check_ended(
        &self,
        queue: &QueueName,
        waiting: &[Member],
        mode: CheckMode,
        found: &mut Findings,
    ) -> Result<(), ReconcileError> {
        let ended = self.ended(waiting).await?;
        if ended.is_empty() {
            return Ok(());
        }
        // Their removal from the index may be in transit.
        sleep(UNDER_WAY).await;
        let left = self.left(queue, ended, mode).await?;
        // A redriven job waits again.
        let ended = self.ended(&left).await?;
        self.forget(queue, &ended, mode, found).await
    }

    async fn ended(&self, members: &[Member]) -> Result<Vec<Member>, ReconcileError> {
        let ids: Vec<_> = members.iter().map(|(id, _)| *id).collect();
        let ended = rows::ended(&self.db, &ids).await?;
        Ok(members.iter().filter(|(id, _)| ended.contains(id)).copied().collect())
    }
}
