//! Announcements to the index besides the settlements: jobs freed by an end, and jobs cancelled
//! with it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shared::queue::{Priority, WaitingJob};
use tests::eventually::poll_until;
use uuid::Uuid;

use super::{dependents::FollowUp, scene::Scene};
use crate::queue::support::{PATIENCE, queue};

/// Longer than a case takes, and within the look-ahead of the index.
const SOON: Duration = Duration::from_secs(55);

impl Scene<'_> {
    /// The process that recorded the last ends survives and announces their follow-up.
    pub fn announced(&mut self) -> FollowUp {
        let follow_up = std::mem::take(&mut self.model.ledger.follow_up);
        for id in &follow_up.freed {
            self.model.index.push(*id, self.model.ledger.job(*id).due);
        }
        for id in &follow_up.cancelled {
            self.model.index.flows.remove(id);
        }
        follow_up
    }

    /// The process dies before it announces the follow-up.
    pub fn unannounced(&mut self) {
        self.model.ledger.follow_up = FollowUp::default();
    }

    /// Waits for a push that happens after the response.
    pub async fn until_pushed(&self) -> Result<()> {
        let expected = self.model.index.ids();
        let pushed = poll_until(PATIENCE, async || {
            let (mut flows, held) = (self.flows().await.ok()?, self.held().await.ok()?);
            // Directly dispatched jobs have left their flow already.
            flows
                .extend(held.into_iter().filter(|id| expected.contains(id) && !self.model.index.held.contains_key(id)));
            (flows == expected).then_some(())
        });
        if pushed.await.is_none() {
            bail!("in the flows after a commit: {}", self.difference(&self.flows().await?, &expected));
        }
        Ok(())
    }

    /// Pushes these jobs as due soon. The index removes them when their cancellation is announced.
    pub async fn mark(&self, ids: &[Uuid]) -> Result<()> {
        let run_at_ms = self.world.system.clock.now_ms() + i64::try_from(SOON.as_millis())?;
        let waiting = ids.iter().map(|id| {
            let job = self.model.ledger.job(*id);
            let (tenant, priority) = (self.world.tenants[job.tenant], Priority::from_ledger(job.priority));
            WaitingJob { id: *id, tenant, priority, run_at_ms: Some(run_at_ms) }
        });
        Ok(self.index.push(&queue(), &waiting.collect::<Vec<_>>()).await?)
    }

    /// Waits until the cancellation has been announced.
    pub async fn until_unmarked(&self, ids: &[Uuid]) -> Result<()> {
        let told = poll_until(PATIENCE, async || {
            let due = self.due().await.ok()?;
            due.is_disjoint(&ids.iter().copied().collect()).then_some(())
        });
        ensure!(told.await.is_some(), "the cancellation of {ids:?} was not announced");
        Ok(())
    }
}
