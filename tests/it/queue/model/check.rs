//! Checks after each step: the real ledger and the real index match the model, and service is fair.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use shared::queue::IndexState;
use uuid::Uuid;

use super::{dependents::FollowUp, ledger::Job, messages::UNREAD, scene::Scene, step::End, steps_of_tenants::key_text};
use crate::queue::support::{queue, shard};

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    state: String,
    attempt: i32,
    failures: i16,
    crashes: i16,
    due: bool,
    run_at_ms: i64,
    finalized: bool,
    expiry: String,
    waits_for: i16,
}

impl Scene<'_> {
    /// Compares everything.
    pub async fn check(&mut self) -> Result<()> {
        self.check_ledger().await?;
        self.check_keys().await?;
        self.check_dependencies().await?;
        self.check_batches().await?;
        self.check_index().await?;
        let waiting: BTreeSet<usize> =
            self.model.index.flows.keys().map(|id| self.model.ledger.job(*id).tenant).collect();
        match self.model.fairness.observe(&waiting, self.model.index.held.len()) {
            Some(unfair) => anyhow::bail!("unfair: {unfair}"),
            None => Ok(()),
        }
    }

    /// A row whose state differs from the model's took an illegal transition.
    async fn check_ledger(&mut self) -> Result<()> {
        let rows: Vec<Row> = sqlx::query_as(
            "select id, state::text, attempt, failures, crashes, run_at <= now() as due,
                    (extract(epoch from run_at) * 1000)::bigint as run_at_ms, finalized_at is not null as finalized,
                    case when expires_at is null then 'never' when expires_at > now() then 'later' else 'over' end as expiry, waits_for
             from jobs",
        )
        .fetch_all(&mut self.owner)
        .await?;
        let rows: BTreeMap<Uuid, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        ensure!(rows.len() == self.model.ledger.jobs.len(), "{} rows", rows.len());
        for job in &mut self.model.ledger.jobs {
            let row = rows.get(&job.id).with_context(|| format!("lost: {job:?}"))?;
            job.run_at_ms = row.run_at_ms;
            let real = (row.state.as_str(), row.attempt, row.failures, row.crashes, row.finalized);
            let expected = (job.state, job.attempt, job.failures, job.crashes, job.is_final());
            ensure!(real == expected, "the row is {real:?}, the model says {job:?}");
            let real = (row.due, row.expiry.as_str(), usize::try_from(row.waits_for)?);
            let expected = (job.due, job.expiry.as_str(), job.after.len() + usize::from(job.completes.is_some()));
            ensure!(job.is_final() || real == expected, "due, expiry, waits for: {real:?}, the model says {job:?}");
        }
        Ok(())
    }

    async fn check_keys(&mut self) -> Result<()> {
        let rows = sqlx::query_as("select tenant_id, key, job_id from unique_keys").fetch_all(&mut self.owner).await?;
        let real: BTreeSet<(Uuid, String, Uuid)> = rows.into_iter().collect();
        let held = self.model.ledger.keys.held.iter();
        let held = held.map(|(&(tenant, key), job)| (*self.world.tenants[tenant].as_uuid(), key_text(key), *job));
        let expected: BTreeSet<_> = held.collect();
        ensure!(real == expected, "the keys are {real:?}, the model says {expected:?}");
        Ok(())
    }

    async fn check_dependencies(&mut self) -> Result<()> {
        let statement = "select tenant_id, job_id, depends_on, run_on_failure from job_dependencies";
        let rows = sqlx::query_as(statement).fetch_all(&mut self.owner).await?;
        let real: BTreeSet<(Uuid, Uuid, Uuid, bool)> = rows.into_iter().collect();
        let edges = |job: &Job| {
            let (tenant, id, run_on_failure) = (*self.world.tenants[job.tenant].as_uuid(), job.id, job.run_on_failure);
            job.after.iter().map(|parent| (tenant, id, *parent, run_on_failure)).collect::<Vec<_>>()
        };
        let expected: BTreeSet<_> = self.model.ledger.jobs.iter().flat_map(edges).collect();
        ensure!(real == expected, "the dependencies are {real:?}, the model says {expected:?}");
        ensure!(self.model.ledger.follow_up == FollowUp::default(), "the step did not handle the follow-up of an end");
        Ok(())
    }

    async fn check_batches(&mut self) -> Result<()> {
        let statement = "select id, total, pending, finished_at is not null from batches order by id";
        let real: Vec<(Uuid, i32, i32, bool)> = sqlx::query_as(statement).fetch_all(&mut self.owner).await?;
        let mut expected = Vec::new();
        for (id, batch) in &self.model.ledger.batches.0 {
            expected.push((*id, batch.total.try_into()?, batch.pending.len().try_into()?, batch.finished));
        }
        ensure!(real == expected, "the batches are {real:?}, the model says {expected:?}");
        Ok(())
    }

    async fn check_index(&mut self) -> Result<()> {
        self.note_dispatches().await?;
        self.check_holders()?;
        let state = self.index.status(&queue()).await?.state;
        ensure!(state == self.model.index.state, "the index is {state:?}, the model says {:?}", self.model.index.state);
        let (flows, expected) = (self.flows().await?, self.model.index.ids());
        ensure!(flows == expected, "in flows: {}", self.difference(&flows, &expected));
        let ids: Vec<Uuid> = self.model.ledger.jobs.iter().map(|job| job.id).collect();
        if !ids.is_empty() {
            let leased = self.index.leased_in(&shard(), &ids).await?;
            let held: BTreeSet<Uuid> = ids.iter().zip(leased).filter(|(_, held)| *held).map(|(id, _)| *id).collect();
            let expected: BTreeSet<Uuid> = self.model.index.held.keys().copied().collect();
            ensure!(held == expected, "held: {}", self.difference(&held, &expected));
            // Unread leases may be of any job.
            let is_read = |id: &Uuid| self.model.index.held[id].lease < UNREAD;
            let waits = held.iter().find(|id| is_read(id) && !self.model.ledger.job(**id).is_free());
            ensure!(waits.is_none(), "{waits:?} is held and has dependencies");
        }
        if state == IndexState::Ready {
            let broken = self.checker.check_index(&queue()).await?;
            ensure!(broken.is_empty(), "the index does not keep its invariants: {broken:?}");
        }
        for (id, at) in &mut self.model.index.flows {
            at.get_or_insert(self.model.ledger.job(*id).run_at_ms);
        }
        Ok(())
    }

    pub(super) fn difference(&self, real: &BTreeSet<Uuid>, expected: &BTreeSet<Uuid>) -> String {
        let jobs = |ids: &mut dyn Iterator<Item = &Uuid>| -> Vec<Job> {
            ids.map(|id| self.model.ledger.job(*id).clone()).collect()
        };
        let (more, less) = (jobs(&mut real.difference(expected)), jobs(&mut expected.difference(real)));
        format!("too many: {more:?}, missing: {less:?}")
    }

    /// At the end all waiting jobs can be run: holders die, the leader repairs, and time passes.
    pub async fn nothing_is_lost(&mut self) -> Result<()> {
        if self.model.index.state != IndexState::Ready {
            self.rebuild(true).await?;
        }
        while self.leases.iter().any(|held| held.alive) {
            self.holder_dies(0, true).await?;
        }
        self.messages.forget();
        // Zombies of a lost index hold nothing; every lease left is expired, or its holder died
        // after its finish.
        self.rebuild(false).await?;
        while self.model.ledger.jobs.iter().any(|job| !job.is_final() && !job.due) {
            self.fall_due(0).await?;
        }
        self.sweep().await?;
        self.check().await?;
        let jobs = self.model.ledger.jobs.iter();
        let waiting: BTreeSet<Uuid> = jobs.filter(|job| !job.is_final() && job.is_free()).map(|job| job.id).collect();
        ensure!(waiting.is_subset(&self.model.index.ids()), "a waiting job is not in the index");
        while !self.model.index.flows.is_empty() || self.messages.has_unread() {
            while self.messages.has_unread() {
                self.read(0).await?;
                self.check().await?;
            }
            while let Some(number) = self.leases.iter().position(|held| held.alive) {
                self.finish(number, End::Completed, 1, true).await?;
                self.check().await?;
            }
            self.work_off(super::step::WIDEST_FETCH, 1, false).await?;
            self.check().await?;
        }
        ensure!(self.model.ledger.jobs.iter().all(Job::is_final), "a job was never leased");
        Ok(())
    }
}
