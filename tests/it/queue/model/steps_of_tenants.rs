//! Steps of tenants: enqueue, cancel, redrive.

use anyhow::{Result, bail, ensure};
use shared::{
    ids,
    queue::{
        NewJob, announcement,
        control::{self, ControlOutcome},
        enqueue::Producer,
        ledger::relations::{BatchPart, DependencyFailure, Refused, Relations, UniqueKey, UniqueUntil},
        ledger::request::{EnqueueRequest, Enqueued},
    },
    tenancy::TenantId,
};
use uuid::Uuid;

use super::{
    keys::Key,
    ledger::{Job, Redrive},
    request::{Expiry, Parent, Request, Shape, Wish},
    scene::{LATER, Model, Scene},
};

impl Scene<'_> {
    pub async fn enqueue(&mut self, request: &Request, told: bool) -> Result<()> {
        let parents: Vec<Uuid> =
            request.parents.iter().filter_map(|parent| self.parent(request.tenant, *parent)).collect();
        let batch = (request.shape == Shape::Batch).then(|| ids::new_id(&self.world.system.clock));
        let (mut new, mut expected) = (Vec::<NewJob>::new(), Vec::new());
        for at in 0..=request.jobs {
            let wish = match batch {
                _ if at < request.jobs => request.wish(&parents, new.last().map(|job| job.id), batch),
                Some(batch) => Wish { batch: Some(BatchPart::Completion(batch)), ..Wish::default() },
                None => break,
            };
            let job = self.new_job(request, &wish)?;
            if let Err(refusal) = self.model.ledger.commit(job.id, request, &wish) {
                expected.push(Refused { id: job.id, refusal });
            }
            new.push(job);
        }
        self.model.ledger.settle();
        // Jobs whose dependencies had ended already are among the new ones, and are announced with
        // them.
        self.unannounced();
        let ids: Vec<Uuid> = new.iter().map(|job| job.id).collect();
        let refused = if told { self.commit(new).await? } else { self.commit_untold(request.tenant, &new).await? };
        ensure!(refused == expected, "refused: {refused:?}, the model says {expected:?}");
        if !told {
            return Ok(());
        }
        let Model { ledger, index, .. } = &mut self.model;
        index.push_waiting(ledger, |job| ids.contains(&job.id));
        self.until_pushed().await
    }

    fn parent(&self, tenant: usize, parent: Parent) -> Option<Uuid> {
        let own = |job: &Job| job.tenant == tenant;
        let of_open = parent.open.then(|| self.job_where(parent.pick, |job| own(job) && !job.is_final()));
        of_open.flatten().or_else(|| self.job_where(parent.pick, own))
    }

    async fn commit(&self, jobs: Vec<NewJob>) -> Result<Vec<Refused>> {
        match self.producer.enqueue(EnqueueRequest { jobs, idempotency: None }).await? {
            Enqueued::Created => Ok(Vec::new()),
            Enqueued::CreatedExcept(refused) => Ok(refused),
            other => bail!("without an idempotency key the result is {other:?}"),
        }
    }

    /// The process dies between the commit and the push.
    async fn commit_untold(&self, tenant: usize, jobs: &[NewJob]) -> Result<Vec<Refused>> {
        let mut transaction = self.world.system.tenants.begin(self.world.tenants[tenant]).await?;
        let refused = Producer::enqueue_in(&mut transaction, jobs).await?;
        transaction.commit().await?;
        Ok(refused)
    }

    fn new_job(&self, request: &Request, wish: &Wish) -> Result<NewJob> {
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
            relations: relations(request, wish),
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
            ControlOutcome::Done(position) if allowed && told => {
                announcement::cancelled(&self.index, &position).await;
                self.model.index.flows.remove(&id);
                self.announced();
            }
            ControlOutcome::Done(_) if allowed => self.unannounced(),
            ControlOutcome::Refused(_) if !allowed => {}
            other => bail!("the cancellation returned {other:?}, the model says allowed: {allowed}"),
        }
        Ok(())
    }

    pub async fn redrive(&mut self, pick: usize, given_up: bool, told: bool) -> Result<()> {
        let of_given_up = given_up.then(|| self.job_where(pick, Job::is_given_up)).flatten();
        let Some(id) = of_given_up.or_else(|| self.any_job(pick)) else { return Ok(()) };
        let expected = self.model.ledger.redrive(id);
        let mut transaction = self.world.system.tenants.begin(self.tenant_of(id)).await?;
        let steered = control::redrive(&mut transaction, id).await?;
        transaction.commit().await?;
        let became = match &steered {
            ControlOutcome::Done(_) => Redrive::Done,
            ControlOutcome::Refused(_) => Redrive::Refused,
            ControlOutcome::KeyHeld(holder) => Redrive::KeyHeld(*holder),
            ControlOutcome::Settling => bail!("a cascade of the model is done in one step"),
            ControlOutcome::NotFound => bail!("the job is not found"),
        };
        ensure!(became == expected, "the redrive returned {became:?}, the model says {expected:?}");
        if let ControlOutcome::Done(position) = steered
            && told
        {
            announcement::redriven(&self.index, std::slice::from_ref(&position)).await;
            self.model.index.push(id, true);
        }
        Ok(())
    }

    fn any_job(&self, pick: usize) -> Option<Uuid> {
        self.job_where(pick, |_| true)
    }

    fn tenant_of(&self, id: Uuid) -> TenantId {
        self.world.tenants[self.model.ledger.job(id).tenant]
    }
}

/// The form of the key in the ledger.
pub fn key_text(key: Key) -> String {
    format!("key-{key}")
}

fn relations(request: &Request, wish: &Wish) -> Option<Box<Relations>> {
    let unique = wish.key.map(|key| UniqueKey { key: key_text(key), until: UniqueUntil::Final });
    let on_dependency_failure = if request.run_on_failure { DependencyFailure::Run } else { DependencyFailure::Cancel };
    let relations = Relations { unique, after: wish.after.clone(), on_dependency_failure, batch: wish.batch };
    (relations.unique.is_some() || !relations.after.is_empty() || relations.batch.is_some())
        .then(|| Box::new(relations))
}
