//! What tenants do: enqueue, cancel, redrive.

use anyhow::{Result, bail, ensure};
use shared::{
    queue::{
        NewJob,
        control::{self, Steered},
        producer::{EnqueueRequest, Enqueued, Producer},
        ties::{Refusal, Refused, Ties, UniqueKey, UniqueUntil},
    },
    tenancy::TenantId,
};
use tests::eventually::poll_until;
use uuid::Uuid;

use super::{
    keys::Key,
    ledger::Redrive,
    request::{Expiry, Request},
    scene::{LATER, Scene},
};
use crate::queue::support::PATIENCE;

impl Scene<'_> {
    pub async fn enqueue(&mut self, request: &Request, told: bool) -> Result<()> {
        let new: Vec<NewJob> = (0..request.jobs).map(|_| self.new_job(request)).collect::<Result<_>>()?;
        let mut expected = Vec::new();
        for &NewJob { id, .. } in &new {
            if let Err(holder) = self.model.ledger.commit(id, request) {
                expected.push(Refused { id, refusal: Refusal::Duplicate { holder } });
            }
        }
        let ids: Vec<Uuid> = new.iter().map(|job| job.id).collect();
        let refused = if told { self.commit(new).await? } else { self.commit_untold(request.tenant, &new).await? };
        ensure!(refused == expected, "refused were {refused:?}, the model says {expected:?}");
        if !told {
            return Ok(());
        }
        for id in ids.into_iter().filter(|id| expected.iter().all(|refused| refused.id != *id)) {
            self.model.index.push(id, request.due);
        }
        // The push comes after the answer.
        let expected = self.model.index.ids();
        let pushed =
            poll_until(PATIENCE, async || self.lanes().await.is_ok_and(|lanes| lanes == expected).then_some(()));
        ensure!(pushed.await.is_some(), "what was committed was not pushed");
        Ok(())
    }

    async fn commit(&self, jobs: Vec<NewJob>) -> Result<Vec<Refused>> {
        match self.producer.enqueue(EnqueueRequest { jobs, idempotency: None }).await? {
            Enqueued::Created => Ok(Vec::new()),
            Enqueued::CreatedExcept(refused) => Ok(refused),
            other => bail!("without an idempotency key it was {other:?}"),
        }
    }

    /// Whoever committed does not live to tell the index.
    async fn commit_untold(&self, tenant: usize, jobs: &[NewJob]) -> Result<Vec<Refused>> {
        let mut transaction = self.world.system.tenants.begin(self.world.tenants[tenant]).await?;
        let refused = Producer::enqueue_in(&mut transaction, jobs).await?;
        transaction.commit().await?;
        Ok(refused)
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
            ties: request.key.map(|key| Box::new(Ties { unique: Some(unique_key(key)), ..Ties::default() })),
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
        let expected = self.model.ledger.redrive(id);
        let mut transaction = self.world.system.tenants.begin(self.tenant_of(id)).await?;
        let steered = control::redrive(&mut transaction, id).await?;
        transaction.commit().await?;
        let became = match &steered {
            Steered::Done(_) => Redrive::Done,
            Steered::Refused(_) => Redrive::Refused,
            Steered::KeyHeld(holder) => Redrive::KeyHeld(*holder),
            Steered::NotFound => bail!("the job is not found"),
        };
        ensure!(became == expected, "redriving was {became:?}, the model says {expected:?}");
        if let Steered::Done(position) = steered
            && told
        {
            control::announce_redriven(&self.index, &position, self.world.system.clock.now_ms()).await;
            self.model.index.push(id, true);
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

/// As the ledger has it.
pub fn key_text(key: Key) -> String {
    format!("key-{key}")
}

fn unique_key(key: Key) -> UniqueKey {
    UniqueKey { key: key_text(key), until: UniqueUntil::Final }
}
