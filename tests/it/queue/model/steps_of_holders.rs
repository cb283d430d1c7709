//! What workers and tenants do: lease, finish, hand back, die, cancel, redrive.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use shared::queue::{
    IndexState, Settlement,
    consumer::Lease,
    control::{self, Steered},
    finish::{self, Finish, Outcome, Recorded},
};
use uuid::Uuid;

use super::{
    ledger::Verdict,
    scene::{Held, LATER, Scene},
    step::End,
};
use crate::queue::support::shard;

/// Jobs whose times are closer than this have no order: they were told with the producer's clock and swept with the ledger's.
const SAME_TIME_MS: i64 = 50;

impl Scene<'_> {
    /// Returns the numbers of the new leases.
    pub async fn fetch(&mut self, wanted: usize) -> Result<Vec<usize>> {
        let before = self.model.index.ids();
        let fetched = self.consumer.fetch(&shard(), wanted).await?;
        ensure!(fetched.state == self.model.index.state, "the index is {:?}", fetched.state);
        let expected = if fetched.state == IndexState::Ready { wanted.min(before.len()) } else { 0 };
        ensure!(fetched.taken == expected, "{} ids taken, {expected} expected", fetched.taken);
        let after = self.lanes().await?;
        let taken: BTreeSet<Uuid> = before.difference(&after).copied().collect();
        ensure!(after.is_subset(&before) && taken.len() == expected, "{taken:?} left the lanes");
        self.judge_leases(&taken, &fetched.leases)?;
        self.judge_order(&taken)?;
        for id in &taken {
            self.model.index.lanes.remove(id);
        }
        let first = self.leases.len();
        for lease in fetched.leases {
            self.model.index.lease(lease.id, self.leases.len());
            self.leases.push(Held { lease, alive: true });
        }
        Ok((first..self.leases.len()).collect())
    }

    /// Of what left the lanes, exactly what is eligible is leased, and as the ledger has it.
    fn judge_leases(&self, taken: &BTreeSet<Uuid>, leases: &[Lease]) -> Result<()> {
        let eligible: BTreeSet<Uuid> =
            taken.iter().copied().filter(|id| self.model.ledger.job(*id).is_eligible()).collect();
        let leased: BTreeSet<Uuid> = leases.iter().map(|lease| lease.id).collect();
        ensure!(leased == eligible && leased.len() == leases.len(), "leased {leased:?}, eligible were {eligible:?}");
        for lease in leases {
            let job = self.model.ledger.job(lease.id);
            let row = (job.attempt, job.failures, job.crashes, job.priority, self.world.tenants[job.tenant]);
            let given = (lease.attempt, lease.failures, lease.crashes, lease.priority.get(), lease.tenant);
            ensure!(given == row, "leased as {given:?}, the ledger says {row:?}");
        }
        Ok(())
    }

    /// No job was taken before another of its tenant that is more urgent, or equally urgent and clearly older.
    fn judge_order(&self, taken: &BTreeSet<Uuid>) -> Result<()> {
        let place = |id: &Uuid| {
            let job = self.model.ledger.job(*id);
            (job, self.model.index.lanes.get(id).copied().flatten().unwrap_or(job.run_at_ms))
        };
        for (taken_job, taken_at) in taken.iter().map(place) {
            let left = self.model.index.lanes.keys().filter(|id| !taken.contains(*id)).map(place);
            for (job, at) in left.filter(|(job, _)| job.tenant == taken_job.tenant) {
                let before = job.priority < taken_job.priority
                    || (job.priority == taken_job.priority && at + SAME_TIME_MS < taken_at);
                ensure!(!before, "{taken_job:?} was taken before {job:?}");
            }
        }
        Ok(())
    }

    pub async fn work_off(&mut self, wanted: usize, ran_ms: u64) -> Result<()> {
        for lease in self.fetch(wanted).await? {
            self.end(lease, End::Completed, ran_ms, true).await?;
        }
        Ok(())
    }

    pub async fn finish(&mut self, pick: usize, end: End, ran_ms: u64, settled: bool) -> Result<()> {
        if self.leases.is_empty() {
            return Ok(());
        }
        self.end(pick % self.leases.len(), end, ran_ms, settled).await
    }

    /// As `worker::finisher` does it: the ledger first, then the index with what the ledger said.
    async fn end(&mut self, number: usize, end: End, ran_ms: u64, settled: bool) -> Result<()> {
        let lease = self.leases[number].lease.clone();
        let finish = Finish { id: lease.id, attempt: lease.attempt, hooks: lease.hooks, outcome: outcome(end) };
        let recorded = finish::record(&self.world.system.system, &[finish]).await?.recorded;
        let recorded = *recorded.get(&lease.id).context("an answer for every id")?;
        let verdict = self.model.ledger.finish(lease.id, lease.attempt, end);
        ensure!(said(recorded) == verdict, "the ledger said {recorded:?}, the model {verdict:?}");
        self.leases[number].alive = false;
        if !settled {
            return Ok(());
        }
        let again = match recorded {
            Recorded::Final | Recorded::RefusedFinal => None,
            Recorded::Again(run_at_ms, priority) => Some((run_at_ms, priority)),
            Recorded::RefusedOvertaken => return Ok(()),
        };
        let ran = Some(Duration::from_millis(ran_ms));
        self.index.settle(&shard(), &[Settlement { id: lease.id, token: lease.token, ran, again }]).await?;
        let (due, tenant) = (self.model.ledger.job(lease.id).due, self.model.ledger.job(lease.id).tenant);
        if self.model.index.settle(lease.id, number, again.is_some() && due) {
            self.model.fairness.charge(tenant, ran_ms);
        }
        Ok(())
    }

    pub async fn hand_back(&mut self, pick: usize) -> Result<()> {
        let Some(number) = self.living(pick) else { return Ok(()) };
        let lease = self.leases[number].lease.clone();
        self.index.settle(&shard(), &[lease.hand_back()]).await?;
        self.leases[number].alive = false;
        self.model.index.settle(lease.id, number, true);
        Ok(())
    }

    /// Renewing a lease for no time at all lets it run out now, without waiting.
    pub async fn holder_dies(&mut self, pick: usize) -> Result<()> {
        let Some(number) = self.living(pick) else { return Ok(()) };
        let lease = &self.leases[number].lease;
        let (_, lost) = self.index.renew(&shard(), Duration::ZERO, &[lease.held(Duration::ZERO)]).await?;
        let id = lease.id;
        self.leases[number].alive = false;
        let held = match self.model.index.state {
            IndexState::Ready => self.model.index.expire(id, number),
            // Nothing can be said of a lost index, and one in its grace believes whoever comes first. Only a fetch is late.
            IndexState::Stale | IndexState::Late => true,
            IndexState::Grace => {
                if !self.model.index.held.contains_key(&id) {
                    self.model.index.lease(id, number);
                }
                self.model.index.expire(id, number)
            }
        };
        ensure!(lost.is_empty() == held, "lost: {lost:?}, but the model says held: {held}");
        Ok(())
    }

    fn living(&self, pick: usize) -> Option<usize> {
        let living: Vec<usize> = (0..self.leases.len()).filter(|number| self.leases[*number].alive).collect();
        (!living.is_empty()).then(|| living[pick % living.len()])
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
                control::announce_redriven(&self.index, &position).await;
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

    fn tenant_of(&self, id: Uuid) -> shared::tenancy::TenantId {
        self.world.tenants[self.model.ledger.job(id).tenant]
    }
}

fn outcome(end: End) -> Outcome {
    let (error, later) = ("as asked".to_owned(), LATER.to_std().unwrap_or_default());
    match end {
        End::Completed => Outcome::Completed { result: None },
        End::RetryNow => Outcome::Retry { error, delay: Duration::ZERO },
        End::RetryLater => Outcome::Retry { error, delay: later },
        End::Snoozed => Outcome::Snoozed { delay: later },
        End::Discarded => Outcome::Discarded { error },
        End::Cancelled => Outcome::Cancelled { reason: error },
    }
}

fn said(recorded: Recorded) -> Verdict {
    match recorded {
        Recorded::Final => Verdict::Final,
        Recorded::Again(..) => Verdict::Again,
        Recorded::RefusedFinal => Verdict::RefusedFinal,
        Recorded::RefusedOvertaken => Verdict::RefusedOvertaken,
    }
}
