//! What tenants do: enqueue, cancel, redrive.

use anyhow::{Result, bail, ensure};
use shared::{
    queue::{
        NewJob,
        control::{self, Steered},
        producer::{EnqueueRequest, Producer},
    },
    tenancy::TenantId,
};
use tests::eventually::poll_until;
use uuid::Uuid;

use super::{
    request::{Expiry, Request},
    scene::{LATER, Scene},
};
use crate::queue::support::PATIENCE;

impl Scene<'_> {
    pub async fn enqueue(&mut self, request: &Request, told: bool) -> Result<()> {
        let new: Vec<NewJob> = (0..request.jobs).map(|_| self.new_job(request)).collect::<Result<_>>()?;
        let ids: Vec<Uuid> = new.iter().map(|job| job.id).collect();
        for id in &ids {
            self.model.ledger.commit(*id, request);
        }
        if !told {
            let mut transaction = self.world.system.tenants.begin(self.world.tenants[request.tenant]).await?;
            Producer::enqueue_in(&mut transaction, &new).await?;
            return Ok(transaction.commit().await?);
        }
        self.producer.enqueue(EnqueueRequest { jobs: new, idempotency: None }).await?;
        for id in &ids {
            self.model.index.push(*id, request.due);
        }
        // The push comes after the answer.
        let expected = self.model.index.ids();
        let pushed =
            poll_until(PATIENCE, async || self.lanes().await.is_ok_and(|lanes| lanes == expected).then_some(()));
        ensure!(pushed.await.is_some(), "what was committed was not pushed");
        Ok(())
    }

    fn new_job(&self, request: &Request) -> Result<NewJob> {
        let system = &self.world.system;
        let now = system.clock.now();
        Ok(NewJob {
            priority: request.priority.try_into().map_err(anyhow::Error::msg)?,
            run_at: (!request.due).then(|| now + LATER),
            expires_at: match request.expiry {
                Expiry::Never => None,
                Expiry::Later => Some(now + LATER),
                Expiry::Over => Some(now - LATER),
            },
            ..system.job(self.world.tenants[request.tenant], "noop", &serde_json::json!({}))
        })
    }

    pub async fn cancel(&mut self, pick: usize, told: bool) -> Result<()> {
        let Some(id) = self.any_job(pick) else { return Ok(()) };
        let allowed = self.model.ledger.cancel(id);
        let mut transaction = self.world.system.tenants.begin(self.tenant_of(id)).await?;
        let steered = control::cancel(&mut transaction, id).await?;
        transaction.commit().await?;
        match steered {
            Steered::Done(position) if allowed && told => {
                control::announce_cancelled(&self.index, &position).await;
                self.model.index.lanes.remove(&id);
            }
            Steered::Done(_) if allowed => {}
            Steered::Refused(_) if !allowed => {}
            other => bail!("cancelling was {other:?}, the model says allowed: {allowed}"),
        }
        Ok(())
    }

    pub async fn redrive(&mut self, pick: usize, told: bool) -> Result<()> {
        let Some(id) = self.any_job(pick) else { return Ok(()) };
        let allowed = self.model.ledger.redrive(id);
        let mut transaction = self.world.system.tenants.begin(self.tenant_of(id)).await?;
        let steered = control::redrive(&mut transaction, id).await?;
        transaction.commit().await?;
        match steered {
            Steered::Done(position) if allowed && told => {
                control::announce_redriven(&self.index, &position, self.world.system.clock.now_ms()).await;
                self.model.index.push(id, true);
            }
            Steered::Done(_) if allowed => {}
            Steered::Refused(_) if !allowed => {}
            other => bail!("redriving was {other:?}, the model says allowed: {allowed}"),
        }
        Ok(())
    }

    pub fn any_job(&self, pick: usize) -> Option<Uuid> {
        let jobs = &self.model.ledger.jobs;
        (!jobs.is_empty()).then(|| jobs[pick % jobs.len()].id)
    }

    fn tenant_of(&self, id: Uuid) -> TenantId {
        self.world.tenants[self.model.ledger.job(id).tenant]
    }
}
