//! What this process holds: one entry for each leased job, from fetch until its lease is settled.
//!
//! Invariant: whatever is leased is here, so the renewer extends it; whatever is no longer here is not renewed. A job begins, or is handed back
//! without having begun, never both: whoever asks first does it.

use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt as _};
use shared::queue::{HeldLease, LeaseToken, Shard, consumer::Lease};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// From the lease of a job to its entry here: the cancellation of a job that is not here may be for one on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// The leases of this process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Holdings {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Ids are made here, so nobody can choose some that collide, and each job is looked up six times: a fast hash will do.
    entries: HashMap<Uuid, Held>,
    /// Cancellations of jobs that were not here, oldest first, each up to an attempt.
    missed: VecDeque<(Instant, Uuid, i32)>,
}

struct Held {
    lease: Arc<Lease>,
    since: Instant,
    phase: Phase,
    cancelled: CancellationToken,
    /// Its end is under way to the index, which forgets it then.
    settling: bool,
}

/// How far a job that is held has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not begun.
    Waits,
    /// Its handler runs, since then.
    Runs(Instant),
    /// Its handler has ended, or it is handed back.
    Over,
}

impl Holdings {
    /// Enters new leases and returns, for each, the token with which its run is cancelled. An earlier lease of the same job, which this
    /// process must have lost, is cancelled and replaced.
    pub fn enter(&self, leases: &[Arc<Lease>]) -> Vec<CancellationToken> {
        let (mut state, since) = (self.lock(), Instant::now());
        leases.iter().map(|lease| state.enter(Arc::clone(lease), since)).collect()
    }

    /// Notes that the handler of a job begins. If it must not, because the job was handed back or is held by a later lease, returns false.
    pub fn begin(&self, id: Uuid, token: LeaseToken) -> bool {
        self.move_on(id, token, Phase::Runs(Instant::now()))
    }

    /// Notes that the handler of a job has ended: only the time between is charged while it lasts.
    pub fn end(&self, id: Uuid, token: LeaseToken) {
        if let Some(held) = self.lock().held(id, token) {
            held.phase = Phase::Over;
        }
    }

    /// Notes that a job is handed back. If it has begun, or somebody else hands it back, returns false.
    pub fn give_up(&self, id: Uuid, token: LeaseToken) -> bool {
        self.move_on(id, token, Phase::Over)
    }

    /// What has not begun, all of which is to be handed back by the caller now.
    pub fn give_up_all(&self) -> Vec<Arc<Lease>> {
        let mut state = self.lock();
        let waiting = state.entries.values_mut().filter(|held| held.phase == Phase::Waits);
        let given_up = waiting.map(|held| {
            held.phase = Phase::Over;
            Arc::clone(&held.lease)
        });
        given_up.collect()
    }

    fn move_on(&self, id: Uuid, token: LeaseToken, to: Phase) -> bool {
        let mut state = self.lock();
        let Some(held) = state.held(id, token).filter(|held| held.phase == Phase::Waits) else { return false };
        held.phase = to;
        true
    }

    /// Takes leases out, but for jobs that are held by a later lease by now.
    pub fn leave(&self, leases: impl IntoIterator<Item = (Uuid, LeaseToken)>) {
        let mut state = self.lock();
        for (id, token) in leases {
            if let Entry::Occupied(held) = state.entries.entry(id)
                && held.get().lease.token == token
            {
                held.remove();
            }
        }
    }

    /// Notes before leases are settled that they must not be asserted any more.
    pub fn settles(&self, leases: impl IntoIterator<Item = (Uuid, LeaseToken)>) {
        let mut state = self.lock();
        for (id, token) in leases {
            if let Some(held) = state.held(id, token) {
                held.settling = true;
            }
        }
    }

    /// Whether a lease that the index has forgotten is still wanted here.
    pub fn may_assert(&self, id: Uuid, token: LeaseToken) -> bool {
        self.lock().held(id, token).is_some_and(|held| !held.settling)
    }

    /// Cancels the run of a job that is said to be cancelled up to this attempt: a later one is of a job that was redriven. What is on its way is
    /// cancelled when it comes, before anything of it has run.
    pub fn cancel_up_to(&self, id: Uuid, attempt: i32) {
        let State { entries, missed } = &mut *self.lock();
        while missed.front().is_some_and(|(at, ..)| at.elapsed() > ON_ITS_WAY) {
            missed.pop_front();
        }
        match entries.get(&id) {
            Some(held) if held.lease.attempt <= attempt => held.cancelled.cancel(),
            Some(_) => {}
            None => missed.push_back((Instant::now(), id, attempt)),
        }
    }

    /// Cancels the run of a job that is lost to it, unless it is held by a later lease by now.
    pub fn cancel_if(&self, id: Uuid, token: LeaseToken) {
        if let Some(held) = self.lock().held(id, token) {
            held.cancelled.cancel();
        }
    }

    /// Cancels all runs: the process has no time left.
    pub fn cancel_all(&self) {
        for held in self.lock().entries.values() {
            held.cancelled.cancel();
        }
    }

    /// What is to be renewed, by shard.
    pub fn by_shard(&self) -> HashMap<Shard, Vec<HeldLease>> {
        let mut shards: HashMap<_, Vec<_>> = HashMap::new();
        for Held { lease, phase, .. } in self.lock().entries.values() {
            let running_for = if let Phase::Runs(since) = phase { since.elapsed() } else { Duration::ZERO };
            shards.entry(lease.shard.clone()).or_default().push(lease.held(running_for));
        }
        shards
    }

    /// Runs that were leased at least so long ago, with their attempts.
    pub fn older_than(&self, age: Duration) -> Vec<(Uuid, i32, LeaseToken)> {
        let entries = &self.lock().entries;
        let old = entries.values().filter(|held| held.since.elapsed() >= age);
        old.map(|held| (held.lease.id, held.lease.attempt, held.lease.token)).collect()
    }

    /// How many jobs are held.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether every job that is held has ended, or is handed back: what is left is to write that.
    pub fn is_over(&self) -> bool {
        self.lock().entries.values().all(|held| held.phase == Phase::Over)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic while the lock is held leaves maps that are still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, lease: Arc<Lease>, since: Instant) -> CancellationToken {
        let (id, attempt, cancelled) = (lease.id, lease.attempt, CancellationToken::new());
        let held = Held { lease, since, phase: Phase::Waits, cancelled: cancelled.clone(), settling: false };
        if let Some(lost) = self.entries.insert(id, held) {
            lost.cancelled.cancel();
        }
        if self.was_missed(id, attempt) {
            cancelled.cancel();
        }
        cancelled
    }

    /// The entry of this lease; `None` if it is not held, or the job is held by a later one.
    fn held(&mut self, id: Uuid, token: LeaseToken) -> Option<&mut Held> {
        self.entries.get_mut(&id).filter(|held| held.lease.token == token)
    }

    /// Whether a cancellation came too early, which counts once.
    fn was_missed(&mut self, id: Uuid, attempt: i32) -> bool {
        let is_it =
            |(at, other, up_to): &(Instant, Uuid, i32)| *other == id && attempt <= *up_to && at.elapsed() <= ON_ITS_WAY;
        let at = self.missed.iter().position(is_it);
        at.and_then(|at| self.missed.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use shared::{clock::Clock, queue::Priority, tenancy::TenantId};

    use super::*;

    fn lease(id: u128) -> Arc<Lease> {
        Arc::new(Lease {
            id: Uuid::from_u128(id),
            tenant: TenantId::new(Uuid::from_u128(1)),
            shard: Shard::whole("default".parse().expect("a name")),
            kind: "noop".into(),
            args: serde_json::value::RawValue::from_string("{}".to_owned()).expect("an object"),
            attempt: 1,
            failures: 0,
            crashes: 0,
            max_attempts: 1,
            priority: Priority::DEFAULT,
            batch_id: None,
            run_at: Clock::system().now(),
            hooks: 0,
            args_version: 1,
            token: LeaseToken::random(),
            sure_until: Instant::now(),
            lasts: Duration::ZERO,
        })
    }

    /// What waits for a slot, or for its end to be written, uses no worker time.
    #[test]
    fn only_the_time_of_the_run_is_charged_while_it_lasts() {
        let (holdings, one) = (Holdings::default(), lease(1));
        let running_for = || {
            let shards = holdings.by_shard();
            shards.values().flatten().map(|held| held.held_for).max().expect("it is held")
        };
        holdings.enter(&[Arc::clone(&one)]);
        assert_eq!(running_for(), Duration::ZERO);
        assert!(!holdings.begin(one.id, LeaseToken::random()), "another lease says nothing of this one");
        assert!(holdings.begin(one.id, one.token));
        std::thread::sleep(Duration::from_millis(5));
        assert!(running_for() >= Duration::from_millis(5));
        holdings.end(one.id, LeaseToken::random());
        assert!(running_for() >= Duration::from_millis(5), "another lease says nothing of this one");
        holdings.end(one.id, one.token);
        assert_eq!(running_for(), Duration::ZERO);
    }

    #[test]
    fn what_begins_is_not_handed_back_and_what_is_handed_back_does_not_begin() {
        let (holdings, leases) = (Holdings::default(), [1, 2, 3].map(lease));
        holdings.enter(&leases);
        let [one, two, three] = &leases;
        assert!(holdings.begin(one.id, one.token) && holdings.give_up(two.id, two.token));
        assert!(!holdings.give_up(one.id, one.token) && !holdings.begin(two.id, two.token));
        assert_eq!(holdings.give_up_all().iter().map(|lease| lease.id).collect::<Vec<_>>(), [three.id]);
        assert!(!holdings.begin(three.id, three.token) && holdings.give_up_all().is_empty());
        assert!(!holdings.is_over(), "one runs");
        holdings.end(one.id, one.token);
        assert!(holdings.is_over() && holdings.len() == 3, "their ends are to be written");
    }

    /// It was read as waiting, then cancelled, and is entered only now.
    #[test]
    fn a_cancellation_of_a_job_on_its_way_is_not_lost() {
        let (holdings, one, other) = (Holdings::default(), lease(1), lease(2));
        let is_cancelled = |lease: &Arc<Lease>| holdings.enter(&[Arc::clone(lease)])[0].is_cancelled();
        holdings.cancel_up_to(one.id, 1);
        assert!(!is_cancelled(&other) && is_cancelled(&one));
        holdings.leave([(one.id, one.token)]);
        assert!(!is_cancelled(&one), "it counts once");
    }

    /// It was redriven, and the notice comes late.
    #[test]
    fn a_cancellation_is_not_of_a_later_attempt() {
        let (holdings, held, other) = (Holdings::default(), lease(1), lease(2));
        let cancelled = holdings.enter(&[Arc::clone(&held)]).remove(0);
        for id in [held.id, other.id] {
            holdings.cancel_up_to(id, 0);
        }
        assert!(!cancelled.is_cancelled() && !holdings.enter(&[other])[0].is_cancelled());
        holdings.cancel_up_to(held.id, 1);
        assert!(cancelled.is_cancelled());
    }
}
