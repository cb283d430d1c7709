//! Rescues, whole and in two halves: any message may arrive between raising the attempts and
//! updating the index.

use anyhow::{Result, ensure};
use shared::queue::{
    IndexState,
    repair::rescue::{self, Begun, RescueReport},
};
use uuid::Uuid;

use super::{dependents::FollowUp, ledger::Crash, scene::Scene};
use crate::queue::support::shard;

/// A rescue that has not updated the index yet.
pub struct HalfRescue {
    begun: Begun,
    expected: RescueReport,
    /// Each job with its lease, and the time that orders it if it waits again and is due.
    claimed: Vec<(Uuid, usize, Option<i64>)>,
    follow_up: FollowUp,
}

impl Scene<'_> {
    pub async fn rescue(&mut self) -> Result<()> {
        self.rescue_begins().await?;
        self.rescue_ends().await
    }

    /// The previous leader may have died half-way: the next rescue finds the leases that it
    /// claimed.
    pub async fn rescue_begins(&mut self) -> Result<()> {
        self.rescue = None;
        let world = self.world;
        let begun = rescue::begin(&world.system.system, &self.index, &shard(), &world.term).await?;
        let is_ready = self.model.index.state == IndexState::Ready;
        let expired = if is_ready { self.model.index.expired() } else { Vec::new() };
        ensure!(begun.is_some() != expired.is_empty(), "a rescue has begun: {}", begun.is_some());
        let Some(begun) = begun else { return Ok(()) };
        let (mut expected, mut claimed) = (RescueReport::default(), Vec::new());
        for id in expired {
            let lease = self.model.index.held[&id].lease;
            let crash = self.model.ledger.crash(id, lease);
            match crash {
                Crash::Rescued => expected.rescued += 1,
                Crash::Poisoned => expected.poisoned += 1,
                Crash::Finished => expected.finished += 1,
            }
            let job = self.model.ledger.job(id);
            claimed.push((id, lease, (crash == Crash::Rescued && job.due).then_some(job.run_at_ms)));
            self.model.index.claim(id);
        }
        let follow_up = std::mem::take(&mut self.model.ledger.follow_up);
        self.rescue = Some(HalfRescue { begun, expected, claimed, follow_up });
        Ok(())
    }

    pub async fn rescue_ends(&mut self) -> Result<()> {
        let Some(HalfRescue { begun, expected, claimed, follow_up }) = self.rescue.take() else { return Ok(()) };
        let mut report = RescueReport::default();
        begun.end(&self.index, &mut report).await?;
        ensure!(report == expected, "rescued {report:?}, the model says {expected:?}");
        for (id, lease, again) in claimed {
            self.model.index.settle_rescued(id, lease, again);
        }
        self.model.ledger.follow_up = follow_up;
        self.announced();
        Ok(())
    }
}
