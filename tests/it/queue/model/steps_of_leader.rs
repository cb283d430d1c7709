//! Steps of the leader and losses of the index: rebuild, sweep, promote, expire, lose, restore.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use chrono::DateTime;
use shared::queue::{IndexState, Lease, Priority, WaitingJob, repair::expiry, repair::reconcile::CrawlCursor};
use tests::eventually::eventually;
use uuid::Uuid;

use super::{
    index,
    ledger::Job,
    scene::{LEASE, Scene},
};
use crate::queue::support::{PATIENCE, queue, shard};

/// Several round trips long.
const GRACE: Duration = Duration::from_millis(250);
/// The look-ahead of the scheduler's promoter.
const AHEAD: Duration = Duration::from_secs(50);

impl Scene<'_> {
    pub async fn lose_index(&mut self) -> Result<()> {
        self.delete_keys().await?;
        self.life += 1;
        self.model.index = index::Index::lost();
        self.model.fairness.forget();
        Ok(())
    }

    /// An old dump contains as waiting jobs that are final by now. It should not contain dependent
    /// jobs; a wrong entry must have no effect.
    pub async fn old_state(&mut self, pick: usize) -> Result<()> {
        let wrong = |job: &&Job| job.is_final() || !job.is_free();
        let finished: Vec<_> = self.model.ledger.jobs.iter().filter(wrong).cloned().collect();
        if finished.is_empty() {
            return Ok(());
        }
        let id = finished[pick % finished.len()].id;
        self.push_stale(id).await
    }

    /// Pushes the job as if it had been due.
    pub(super) async fn push_stale(&mut self, id: Uuid) -> Result<()> {
        let job = self.model.ledger.job(id);
        let waiting = WaitingJob {
            id,
            tenant: self.world.tenants[job.tenant],
            priority: Priority::from_ledger(job.priority),
            run_at_ms: Some(job.run_at_ms.min(self.world.system.clock.now_ms() - 1)),
        };
        self.index.push(&queue(), &[waiting]).await?;
        self.model.index.push(id, true);
        if let Some(at) = self.model.index.flows.get_mut(&id) {
            *at = waiting.run_at_ms;
        }
        Ok(())
    }

    pub async fn rebuild(&mut self, asserted: bool) -> Result<()> {
        let living: Vec<usize> =
            (0..self.leases.len()).filter(|number| asserted && self.leases[*number].alive).collect();
        let held: Vec<_> =
            living.iter().map(|number| &self.leases[*number].lease).map(|lease| (lease, Duration::ZERO)).collect();
        let (queue, grace) = (queue(), if held.is_empty() { Duration::ZERO } else { GRACE });
        let asserted = AtomicBool::new(held.is_empty());
        loop {
            let before = self.index.status(&queue).await?.epoch;
            let rebuild = self.reconciler.rebuild(&queue, &self.world.term, grace);
            tokio::select! {
                report = rebuild => drop(report?),
                never = self.keep_asserting(before, &held, &asserted) => never?,
            }
            // On a busy machine the grace may end before all leases were asserted.
            if asserted.load(Ordering::Relaxed) {
                break;
            }
        }
        self.life += 1;
        self.model.index.clear();
        self.model.fairness.forget();
        for number in living {
            let id = self.leases[number].lease.id;
            if !self.model.index.held.contains_key(&id) {
                self.model.index.lease(id, number);
            }
        }
        self.model.index.push_waiting(&self.model.ledger, |_| true);
        self.model.index.state = IndexState::Ready;
        Ok(())
    }

    /// Runs until dropped. Of several holders of a job the first to assert it wins, so none asserts
    /// before the grace, which makes the winner known.
    async fn keep_asserting(&self, before: i64, held: &[(&Lease, Duration)], asserted: &AtomicBool) -> Result<()> {
        self.grace_after(before).await;
        loop {
            // One renewal per lease, since no process holds a job twice.
            for one in held {
                self.index.renew(&shard(), LEASE, std::slice::from_ref(one)).await?;
            }
            if self.index.status(&queue()).await?.state == IndexState::Grace {
                asserted.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn rebuild_cut_short(&mut self) -> Result<()> {
        let before = self.index.status(&queue()).await?.epoch;
        let queue = queue();
        tokio::select! {
            report = self.reconciler.rebuild(&queue, &self.world.term, LEASE) => drop(report?),
            () = self.grace_after(before) => {}
        }
        self.life += 1;
        self.model.index.clear();
        self.model.fairness.forget();
        Ok(())
    }

    /// Waits for the grace of a rebuild after this epoch.
    async fn grace_after(&self, before: i64) {
        eventually(PATIENCE, "the rebuild is in its grace", async || {
            let status = self.index.status(&queue()).await.ok()?;
            (status.state == IndexState::Grace && status.epoch > before).then_some(())
        })
        .await;
    }

    pub async fn sweep(&mut self) -> Result<()> {
        let mut cursor = CrawlCursor::default();
        self.reconciler.crawl(&[queue()], &mut cursor).await?;
        ensure!(cursor == CrawlCursor::default(), "the case fits into one page");
        self.model.index.push_waiting(&self.model.ledger, |_| true);
        Ok(())
    }

    pub async fn promote(&mut self) -> Result<()> {
        self.reconciler.promote(DateTime::UNIX_EPOCH, AHEAD).await?;
        self.model.index.push_waiting(&self.model.ledger, |job| matches!(job.state, "scheduled" | "retryable"));
        Ok(())
    }

    /// Held jobs are left alone, and all jobs while the index cannot report which are held.
    pub async fn expire(&mut self) -> Result<()> {
        let mut expected = 0;
        if self.model.index.state == IndexState::Ready {
            let held = &self.model.index.held;
            let jobs = self.model.ledger.jobs.iter();
            let over = jobs.filter(|job| job.is_expired() && !held.contains_key(&job.id));
            let over: Vec<Uuid> = over.map(|job| job.id).collect();
            expected = over.len() as u64;
            self.model.ledger.expire(&over);
            self.announced();
        }
        let discarded = expiry::sweep(&self.world.system.system, &self.index).await?;
        ensure!(discarded == expected, "{discarded} jobs were discarded, the model says {expected}");
        Ok(())
    }
}
