//! Steps of workers other than the ends of runs: fetch, release, die.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use shared::queue::{
    IndexState, Lease, Renewed,
    repair::{expiry, rescue},
};
use tests::eventually::poll_until;
use uuid::Uuid;

use super::scene::{Held, Scene};
use crate::queue::support::{PATIENCE, shard};

/// Jobs with times closer than this have no defined order: pushes use the producer's clock, sweeps
/// the ledger's.
const SAME_TIME_MS: i64 = 50;
/// A worker that waits no longer than this for the rows of expired jobs discards them, because its
/// statements wait longer for a lock.
const BRIEF_LOCK: Duration = Duration::from_millis(50);
/// After this time the leader discards the jobs: the worker may have given up.
const LEFT_TO_THE_LEADER: Duration = Duration::from_secs(3);
/// How often in all cases that may happen although the lock was brief: a process that gets no
/// processor in time finds its wait for the lock too long.
const MISSED_DISCARDS: usize = 3;

/// The rows of expired jobs, which the test has locked.
pub(super) struct HeldRows {
    ids: Vec<Uuid>,
    since: Instant,
}

impl Scene<'_> {
    /// Returns the numbers of the new leases.
    pub async fn fetch(&mut self, wanted: usize) -> Result<Vec<usize>> {
        let before = self.model.index.ids();
        let over = self.hold_expired(&before).await?;
        let fetched = self.consumer.fetch(&shard(), wanted).await?;
        ensure!(fetched.state == self.model.index.state, "the index is {:?}", fetched.state);
        let expected = if fetched.state == IndexState::Ready { wanted.min(before.len()) } else { 0 };
        ensure!(fetched.taken == expected, "{} ids taken, {expected} expected", fetched.taken);
        let after = self.flows().await?;
        let taken: BTreeSet<Uuid> = before.difference(&after).copied().collect();
        ensure!(after.is_subset(&before) && taken.len() == expected, "{taken:?} left the flows");
        self.judge_leases(&taken, &fetched.leases)?;
        self.judge_order(&taken)?;
        for id in &taken {
            self.model.index.flows.remove(id);
        }
        self.give_up_expired(over, &taken).await?;
        let first = self.leases.len();
        for lease in fetched.leases {
            self.model.index.lease(lease.id, self.leases.len());
            self.leases.push(Held { lease, alive: true, life: self.life });
        }
        Ok((first..self.leases.len()).collect())
    }

    /// Of the jobs that left the flows, exactly the eligible ones are leased, with the values of
    /// the ledger.
    pub(super) fn judge_leases(&self, taken: &BTreeSet<Uuid>, leases: &[Lease]) -> Result<()> {
        let eligible: BTreeSet<Uuid> =
            taken.iter().copied().filter(|id| self.model.ledger.job(*id).is_eligible()).collect();
        let leased: BTreeSet<Uuid> = leases.iter().map(|lease| lease.id).collect();
        ensure!(leased == eligible && leased.len() == leases.len(), "leased {leased:?}, eligible {eligible:?}");
        for lease in leases {
            let job = self.model.ledger.job(lease.id);
            let row = (job.attempt, job.failures, job.crashes, job.priority, self.world.tenants[job.tenant]);
            let given = (lease.attempt, lease.failures, lease.crashes, lease.priority.get(), lease.tenant);
            ensure!(given == row, "leased as {given:?}, the ledger has {row:?}");
        }
        Ok(())
    }

    /// Locks the rows of expired jobs. A worker discards the ones it fetches after its response;
    /// the locks delay that until the flows have been read.
    pub(super) async fn hold_expired(&mut self, before: &BTreeSet<Uuid>) -> Result<HeldRows> {
        let over = before.iter().copied().filter(|id| {
            let job = self.model.ledger.job(*id);
            job.is_free() && job.is_expired()
        });
        let (ids, since): (Vec<Uuid>, Instant) = (over.collect(), Instant::now());
        if !ids.is_empty() {
            sqlx::query("begin").execute(&mut self.owner).await?;
            let lock = "select id from jobs where id = any($1) for update";
            sqlx::query(lock).bind(&ids).execute(&mut self.owner).await?;
        }
        Ok(HeldRows { ids, since })
    }

    pub(super) async fn give_up_expired(&mut self, over: HeldRows, taken: &BTreeSet<Uuid>) -> Result<()> {
        if over.ids.is_empty() {
            return Ok(());
        }
        let given_up: Vec<Uuid> = over.ids.into_iter().filter(|id| taken.contains(id)).collect();
        self.model.ledger.expire(&given_up);
        let cancelled = self.announced().cancelled;
        self.mark(&cancelled).await?;
        sqlx::query("commit").execute(&mut self.owner).await?;
        let is_brief = over.since.elapsed() <= BRIEF_LOCK;
        if !self.are_discarded(&given_up, LEFT_TO_THE_LEADER).await {
            let missed = self.world.missed_discards.fetch_add(usize::from(is_brief), Ordering::SeqCst);
            ensure!(missed <= MISSED_DISCARDS, "workers do not discard expired jobs");
            self.leader_discards(&given_up).await?;
        }
        self.until_pushed().await?;
        self.until_unmarked(&cancelled).await
    }

    /// The leader discards the jobs. A sweep that meets a lock leaves a tenant's jobs to the next one:
    /// the worker may be discarding them at this moment. Other expired jobs may have been dispatched
    /// meanwhile or not, so they are not expired during the sweeps.
    async fn leader_discards(&mut self, given_up: &[Uuid]) -> Result<()> {
        let delay = "update jobs set expires_at = now() + interval '10 hours'
                     where id in (select id from jobs where id <> all($1) and expires_at <= now() order by id for update)
                     returning id";
        let others: Vec<Uuid> = sqlx::query_scalar(delay).bind(given_up).fetch_all(&mut self.owner).await?;
        let began = Instant::now();
        while !self.are_discarded(given_up, Duration::ZERO).await {
            ensure!(began.elapsed() < PATIENCE, "some of {given_up:?} expired and were not discarded");
            expiry::sweep(&self.world.system.system, &self.index).await?;
        }
        let end = "update jobs set expires_at = now()
                   where id in (select id from jobs where id = any($1) order by id for update)";
        sqlx::query(end).bind(others).execute(&mut self.owner).await?;
        Ok(())
    }

    async fn are_discarded(&mut self, ids: &[Uuid], patience: Duration) -> bool {
        let count = "select count(*) = cardinality($1) from jobs where id = any($1) and state = 'discarded'";
        let owner = &mut self.owner;
        let discarded = poll_until(patience, async || {
            let all: bool = sqlx::query_scalar(count).bind(ids).fetch_one(&mut *owner).await.ok()?;
            all.then_some(())
        });
        discarded.await.is_some()
    }

    /// No job is fetched before another job of its tenant that is more urgent, or equally urgent
    /// and clearly older.
    pub(super) fn judge_order(&self, taken: &BTreeSet<Uuid>) -> Result<()> {
        let place = |id: &Uuid| {
            let job = self.model.ledger.job(*id);
            (job, self.model.index.flows.get(id).copied().flatten().unwrap_or(job.run_at_ms))
        };
        for (taken_job, taken_at) in taken.iter().map(place) {
            let left = self.model.index.flows.keys().filter(|id| !taken.contains(*id)).map(place);
            for (job, at) in left.filter(|(job, _)| job.tenant == taken_job.tenant) {
                let before = job.priority < taken_job.priority
                    || (job.priority == taken_job.priority && at + SAME_TIME_MS < taken_at);
                ensure!(!before, "{taken_job:?} was fetched before {job:?}");
            }
        }
        Ok(())
    }

    pub async fn release(&mut self, pick: usize) -> Result<()> {
        let Some(number) = self.living(pick) else { return Ok(()) };
        let lease = self.leases[number].lease.clone();
        self.index.settle(&shard(), &[lease.release()]).await?;
        self.leases[number].alive = false;
        if self.model.index.settle(lease.id, number, true)
            && let Some(place) = self.model.index.flows.get_mut(&lease.id)
        {
            // As it was leased: the ledger may have a later time since a redrive.
            *place = Some(lease.run_at.timestamp_millis());
        }
        Ok(())
    }

    /// Renewing a lease with a duration of zero expires it now, without waiting.
    pub async fn holder_dies(&mut self, pick: usize, begun: bool) -> Result<()> {
        let Some(number) = self.living(pick) else { return Ok(()) };
        if begun {
            self.begin_quarantine(number).await?;
        }
        let lease = &self.leases[number].lease;
        let Renewed { lost, unheld, .. } =
            self.index.renew(&shard(), Duration::ZERO, &[(lease, Duration::ZERO)]).await?;
        let id = lease.id;
        self.leases[number].alive = false;
        let held = match self.model.index.state {
            IndexState::Ready => self.model.index.expire(id, number),
            // A lost index reports no leases as lost, and one in its grace accepts the first
            // assertion of a job. Only a fetch can be late.
            IndexState::Stale | IndexState::Late => true,
            IndexState::Grace => {
                self.model.index.renew(id, number);
                self.model.index.expire(id, number)
            }
        };
        let is_held = lost.is_empty() && unheld.is_empty();
        ensure!(is_held == held, "lost: {lost:?}, {unheld:?}, but the model says held: {held}");
        Ok(())
    }

    /// Begins an exclusive run, only for a job that needs one.
    async fn begin_quarantine(&mut self, number: usize) -> Result<()> {
        let lease = &self.leases[number].lease;
        if lease.crashes + 1 < rescue::MAX_CRASHES {
            return Ok(());
        }
        let begun = rescue::begin_quarantine(&self.world.system.system, lease).await?;
        let allowed = self.model.ledger.begin_quarantine(lease.id, lease.attempt, number);
        ensure!(begun == allowed, "the exclusive run began: {begun}, the model says {allowed}");
        Ok(())
    }

    fn living(&self, pick: usize) -> Option<usize> {
        let living: Vec<usize> = (0..self.leases.len()).filter(|number| self.leases[*number].alive).collect();
        (!living.is_empty()).then(|| living[pick % living.len()])
    }
}
