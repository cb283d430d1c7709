//! Messages in flight for a long time: responses and direct dispatches read late or never; pushes,
//! settlements and renewals that arrive late or twice.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use redis::RedisError;
use shared::{
    ids,
    queue::{
        DirectDispatch, FetchScope, Index, IndexState, Lease, Notice, Notices, Proposed, Renewed, Settlement,
        Subscription,
    },
};
use tests::system::TestSystem;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::scene::{Held, LEASE, Scene};
use crate::queue::support::{PATIENCE, shard};

/// The first lease number of leases whose rows have not been read.
pub const UNREAD: usize = 1_000_000;

/// Messages in flight.
pub struct Messages {
    unread: Vec<Unread>,
    leased: usize,
    dispatches: mpsc::UnboundedReceiver<DirectDispatch>,
    received: Vec<DirectDispatch>,
    /// Every settlement ever recorded: the number of its lease, and whether a job that waits again
    /// is due.
    pub settlements: Vec<(usize, Settlement, bool)>,
    _listening: DropGuard,
}

/// Jobs leased to a worker that has not read the message.
struct Unread {
    number: usize,
    ids: BTreeSet<Uuid>,
    /// The message is in flight for longer than a lease.
    old: bool,
    /// The life of the index in which the message was sent.
    life: usize,
    answer: Answer,
}

enum Answer {
    Fetch(Vec<Result<Proposed, RedisError>>),
    Dispatch(DirectDispatch),
}

impl Messages {
    /// Subscribes to direct dispatches like a worker.
    pub async fn listen(system: &TestSystem, index: &Index) -> Result<(Self, Subscription)> {
        let stop = CancellationToken::new();
        let process = ids::new_id(&system.clock);
        let (mut notices, subscription) = Notices::listen(index, vec![shard()], process, stop.clone());
        ensure!(notices.next().await == Some(Notice::Connected), "the subscription is connected");
        let (dispatched, dispatches) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(notice) = notices.next().await {
                if let Notice::Dispatched(_, dispatch) = notice {
                    // The case may have ended.
                    let _ = dispatched.send(dispatch);
                }
            }
        });
        let (unread, received, settlements) = (Vec::new(), Vec::new(), Vec::new());
        Ok((
            Self { unread, leased: UNREAD, dispatches, received, settlements, _listening: stop.drop_guard() },
            subscription,
        ))
    }

    pub const fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Drops all messages in flight.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    /// The direct dispatch of this job, in flight or received. Each is consumed as soon as the
    /// index shows it, so there is only one.
    async fn dispatched(&mut self, id: Uuid) -> Result<DirectDispatch> {
        loop {
            if let Some(at) = self.received.iter().position(|dispatch| dispatch.job() == id) {
                return Ok(self.received.remove(at));
            }
            let dispatch = timeout(PATIENCE, self.dispatches.recv()).await.context("a direct dispatch is lost")?;
            self.received.push(dispatch.context("the subscription has ended")?);
        }
    }
}

impl Scene<'_> {
    /// Collects the direct dispatches since the last check.
    pub async fn note_dispatches(&mut self) -> Result<()> {
        for id in self.held().await? {
            let index = &self.model.index;
            if index.flows.contains_key(&id) && !index.held.contains_key(&id) {
                let dispatch = self.messages.dispatched(id).await?;
                self.leased_unread(BTreeSet::from([id]), Answer::Dispatch(dispatch));
            }
        }
        Ok(())
    }

    fn leased_unread(&mut self, ids: BTreeSet<Uuid>, answer: Answer) {
        let number = self.messages.leased;
        self.messages.leased += 1;
        for id in &ids {
            self.model.index.flows.remove(id);
            self.model.index.lease(*id, number);
        }
        self.messages.unread.push(Unread { number, ids, old: false, life: self.life, answer });
    }

    pub async fn ask(&mut self, wanted: usize, newly_active: bool) -> Result<()> {
        let before = self.model.index.ids();
        let (scope, most) = if newly_active {
            (FetchScope::NewlyActive, self.newly_active())
        } else {
            (FetchScope::Next, before.len())
        };
        let answer = self.consumer.propose(&[(&shard(), wanted)], scope).await;
        let after = self.flows().await?;
        let taken: BTreeSet<Uuid> = before.difference(&after).copied().collect();
        let expected = if self.model.index.state == IndexState::Ready { wanted.min(most) } else { 0 };
        ensure!(after.is_subset(&before) && taken.len() == expected, "{taken:?} left the flows");
        self.judge_order(&taken)?;
        self.leased_unread(taken, Answer::Fetch(answer));
        Ok(())
    }

    /// The number of tenants with jobs waiting and none running.
    fn newly_active(&self) -> usize {
        let tenants = |ids: &mut dyn Iterator<Item = &Uuid>| -> BTreeSet<usize> {
            ids.map(|id| self.model.ledger.job(*id).tenant).collect()
        };
        let index = &self.model.index;
        tenants(&mut index.flows.keys()).difference(&tenants(&mut index.held.keys())).count()
    }

    pub async fn read(&mut self, pick: usize) -> Result<()> {
        if self.messages.unread.is_empty() {
            return Ok(());
        }
        let at = pick % self.messages.unread.len();
        let Unread { number, ids, old, life, answer } = self.messages.unread.remove(at);
        let own: BTreeSet<Uuid> = ids.iter().copied().filter(|id| !old || self.renews(*id, number)).collect();
        let over = self.hold_expired(&own).await?;
        let mut fetched = match answer {
            Answer::Fetch(proposals) => {
                let delayed = |proposed: Proposed| if old { proposed.delayed() } else { proposed };
                self.consumer.resolve(proposals.into_iter().map(|proposed| proposed.map(delayed)).collect()).await
            }
            Answer::Dispatch(dispatch) => {
                let dispatch = if old { dispatch.delayed(LEASE) } else { dispatch };
                self.consumer.accept(&[(shard(), dispatch)]).await
            }
        };
        let fetched = fetched.remove(0)?;
        self.judge_leases(&own, &fetched.leases)?;
        let leased: BTreeSet<Uuid> = fetched.leases.iter().map(|lease| lease.id).collect();
        for id in own.difference(&leased) {
            self.model.index.settle(*id, number, false);
        }
        self.give_up_expired(over, &own).await?;
        for lease in fetched.leases {
            self.model.index.renumber(lease.id, number, self.leases.len());
            self.leases.push(Held { lease, alive: true, life });
        }
        Ok(())
    }

    /// Whether a lease that is renewed before its run still belongs to its worker.
    fn renews(&mut self, id: Uuid, number: usize) -> bool {
        self.model.index.state != IndexState::Stale && self.model.index.renew(id, number)
    }

    pub async fn message_ages(&mut self, pick: usize, lost: bool) -> Result<()> {
        if self.messages.unread.is_empty() {
            return Ok(());
        }
        let at = pick % self.messages.unread.len();
        let unread = &mut self.messages.unread[at];
        unread.old = true;
        let mut redis = self.redis.clone();
        let key = self.key("leases");
        let unread = &self.messages.unread[at];
        for id in &unread.ids {
            if self.model.index.expire(*id, unread.number) {
                redis::cmd("ZADD").arg(&key).arg("XX").arg(1).arg(id.as_bytes()).exec_async(&mut redis).await?;
            }
        }
        if lost {
            self.messages.unread.remove(at);
        }
        Ok(())
    }

    pub async fn late_push(&mut self, pick: usize, twice: bool) -> Result<()> {
        let Some(id) = self.job_where(pick, |_| true) else { return Ok(()) };
        self.push_stale(id).await?;
        if twice {
            self.note_dispatches().await?;
            self.push_stale(id).await?;
        }
        Ok(())
    }

    pub async fn late_settle(&mut self, pick: usize) -> Result<()> {
        let settlements = &self.messages.settlements;
        if settlements.is_empty() {
            return Ok(());
        }
        let (number, settlement, due) = settlements[pick % settlements.len()];
        self.deliver(number, settlement, due).await
    }

    pub async fn late_renew(&mut self, pick: usize) -> Result<()> {
        let dead: Vec<usize> = (0..self.leases.len()).filter(|number| !self.leases[*number].alive).collect();
        if dead.is_empty() {
            return Ok(());
        }
        let id = self.leases[dead[pick % dead.len()]].lease.id;
        // All workers that ever leased the job renew in one call: of several assertions the first
        // wins.
        let renewing: Vec<usize> = dead.into_iter().filter(|number| self.leases[*number].lease.id == id).collect();
        let leases: Vec<(&Lease, Duration)> =
            renewing.iter().map(|number| (&self.leases[*number].lease, Duration::ZERO)).collect();
        let Renewed { lost, unheld, .. } = self.index.renew(&shard(), LEASE, &leases).await?;
        if self.model.index.state == IndexState::Stale {
            ensure!(lost.is_empty() && unheld.is_empty(), "a stale index reports no leases as lost or not held");
            return Ok(());
        }
        let mut expected = (0, 0);
        for number in renewing {
            let has_holder = self.model.index.held.contains_key(&id);
            let held = self.model.index.renew(id, number);
            expected.0 += usize::from(!held && has_holder);
            expected.1 += usize::from(!held && !has_holder);
            self.leases[number].alive = held;
        }
        ensure!((lost.len(), unheld.len()) == expected, "lost: {lost:?}, unheld: {unheld:?}, expected {expected:?}");
        Ok(())
    }

    /// Checks that no two workers run a job in the ledger's current attempt, as long as the index
    /// is not lost.
    pub fn check_holders(&self) -> Result<()> {
        let mut running = BTreeSet::new();
        for Held { lease, .. } in self.leases.iter().filter(|held| held.alive && held.life == self.life) {
            let job = self.model.ledger.job(lease.id);
            let is_current = !job.is_final() && job.attempt == lease.attempt;
            ensure!(!is_current || running.insert(lease.id), "two workers run {job:?}");
        }
        Ok(())
    }
}
