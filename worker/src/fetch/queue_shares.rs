//! Queue shares: divides the fetch permits between the queues of a worker. A share is a queue, or
//! one shard of a sharded queue.
//!
//! Invariant: the next permit goes to the share with the smallest fraction of what it would hold
//! alone, so neither many jobs nor long jobs give a queue more worker time than another queue with
//! work. A share known to be empty is not polled until a notification announces work or its next
//! poll is due. Next: `fetch/fetcher.rs`, which fetches.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::queue::Shard;
use tokio::time::{Instant, timeout_at};

use super::{notifications::Notifications, permits::ShareUsage};
use crate::capacity::budget;

/// A share that had work within this time is expected to have more soon.
const RECENT_WINDOW: Duration = Duration::from_secs(1);
/// One in this many slots is left to each other share that had work recently, up to half of all
/// slots.
const LEFT_TO_OTHERS: usize = 8;

/// The queue shares of a worker.
pub(super) struct QueueShares {
    list: Vec<QueueShare>,
    slots: usize,
    /// Rotates which share comes first among equals.
    turn: usize,
    notifications: Arc<Notifications>,
}

struct QueueShare {
    shard: Shard,
    usage: Arc<ShareUsage>,
    /// Time of the next fetch unless a notification comes first.
    fetch_at: Instant,
    /// Likely number of jobs: permits that a share cannot fill are lost to the other shares in this
    /// round.
    likely: usize,
}

/// A share that is due for a fetch.
struct Candidate {
    at: usize,
    /// Permits that it may still take.
    room: usize,
    held: usize,
    /// Permits that it would hold alone.
    alone: usize,
    /// Permits that it takes at a time.
    turn: usize,
    wanted: usize,
}

impl QueueShares {
    /// Shares of a worker with this many slots, all due for a fetch.
    pub fn new(shards: Vec<Shard>, slots: usize, notifications: Arc<Notifications>) -> Self {
        let share = |shard| QueueShare {
            shard,
            usage: Arc::new(ShareUsage::new(Arc::clone(&notifications))),
            fetch_at: Instant::now(),
            likely: usize::MAX,
        };
        Self { list: shards.into_iter().map(share).collect(), slots, turn: 0, notifications }
    }

    /// The shard of a share.
    pub fn shard(&self, at: usize) -> &Shard {
        &self.list[at].shard
    }

    /// Waits until a share is due for a fetch.
    pub async fn ready(&mut self) {
        loop {
            self.apply_notifications();
            let now = Instant::now();
            let active = self.active();
            let open = self.list.iter().filter(|share| share.room(self.slots, active) > 0);
            match open.map(|share| share.fetch_at).min() {
                Some(at) if at <= now => return,
                // A timeout counts as a notification.
                Some(at) => drop(timeout_at(at, self.notifications.changed()).await),
                // All shares hold as many permits as they may: the next released permit wakes this
                // task.
                None => self.notifications.changed().await,
            }
        }
    }

    /// Divides permits between the due shares: returns pairs of a share's index and the number of
    /// jobs to fetch.
    pub fn divide(&mut self, permits: usize) -> Vec<(usize, usize)> {
        self.apply_notifications();
        self.turn += 1;
        let (now, count) = (Instant::now(), self.list.len());
        let active = self.active();
        let order = (0..count).map(|at| (self.turn + at) % count);
        let mut candidates: Vec<Candidate> =
            order.filter(|&at| self.list[at].fetch_at <= now).map(|at| self.candidate(at, active)).collect();
        if let [only] = candidates.as_slice() {
            return vec![(only.at, permits.min(only.room))].into_iter().filter(|(_, wanted)| *wanted > 0).collect();
        }
        for candidate in &mut candidates {
            candidate.room = candidate.room.min(self.list[candidate.at].likely);
        }
        let mut left = permits;
        while left > 0 {
            let open = candidates.iter_mut().filter(|candidate| candidate.wanted < candidate.room);
            let Some(least) = open.min_by(|one, other| one.part().total_cmp(&other.part())) else { break };
            let taken = least.turn.min(least.room - least.wanted).min(left);
            least.wanted += taken;
            left -= taken;
        }
        let wanting = candidates.iter().filter(|candidate| candidate.wanted > 0);
        wanting.map(|candidate| (candidate.at, candidate.wanted)).collect()
    }

    /// Records how many of the `wanted` jobs a share returned, and when to fetch from it again.
    pub fn fetched(&mut self, at: usize, wanted: usize, taken: usize, next_in: Duration) {
        self.list[at].likely = if taken < wanted { (2 * taken).max(1) } else { usize::MAX };
        self.fetch_again(at, next_in);
    }

    /// Records when to fetch again after a response that does not show how many jobs the share has.
    pub fn fetch_again(&mut self, at: usize, next_in: Duration) {
        self.list[at].fetch_at = Instant::now() + next_in;
    }

    /// Makes all shares due as soon as a permit is released.
    pub fn fetch_all_at_next_release(&self) {
        self.notifications.await_release();
    }

    /// The permit counts of all shares.
    pub fn usages(&self) -> HashMap<Shard, Arc<ShareUsage>> {
        self.list.iter().map(|share| (share.shard.clone(), Arc::clone(&share.usage))).collect()
    }

    /// Makes shares due for which a notification announced work.
    fn apply_notifications(&mut self) {
        for (at, share) in self.list.iter_mut().enumerate() {
            if self.notifications.take(at) {
                share.fetch_at = Instant::now();
            }
        }
    }

    fn candidate(&self, at: usize, active: usize) -> Candidate {
        let share = &self.list[at];
        let (held, ahead) = (share.usage.held(), share.ahead(self.slots));
        // Shares take turns: with many short jobs in each, fetching a few jobs from every share in
        // each round would be most of the work.
        let turn = (ahead / 2).max(1);
        Candidate { at, room: share.room(self.slots, active), held, alone: self.slots + ahead, turn, wanted: 0 }
    }

    /// How many shares had work recently.
    fn active(&self) -> usize {
        self.list.iter().filter(|share| share.worked_recently()).count()
    }
}

impl QueueShare {
    fn worked_recently(&self) -> bool {
        self.usage.worked_within(RECENT_WINDOW)
    }

    /// How many of its jobs are worth holding beyond the slots.
    fn ahead(&self, slots: usize) -> usize {
        budget::ahead(slots, self.usage.average_us())
    }

    /// How many permits the share may hold. Some slots are left to the other shares that had work
    /// recently (`active` counts all such shares), so jobs of those do not wait for long jobs that
    /// were leased while those shares happened to be empty.
    fn room(&self, slots: usize, active: usize) -> usize {
        let others = active - usize::from(self.worked_recently());
        let left = (others * (slots / LEFT_TO_OTHERS).max(1)).min(slots / 2);
        self.usage.room(slots - left + self.ahead(slots))
    }
}

impl Candidate {
    /// Fraction of the permits that the share would hold alone.
    fn part(&self) -> f64 {
        fraction(self.held + self.wanted, self.alone)
    }
}

#[expect(clippy::cast_precision_loss, reason = "both are at most a few thousand")]
fn fraction(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::fetch::permits::FetchPermit;

    const SLOTS: usize = 20;

    fn shares(count: usize) -> QueueShares {
        let shards: Vec<Shard> =
            (0..count).map(|at| Shard::whole(format!("queue_{at}").parse().expect("a name"))).collect();
        let notifications = Notifications::new(&shards);
        QueueShares::new(shards, SLOTS, notifications)
    }

    fn take(shares: &QueueShares, at: usize, permits: &Arc<Semaphore>) -> FetchPermit {
        let permit = Arc::clone(permits).try_acquire_owned().expect("a permit is free");
        FetchPermit::taken(&shares.list[at].usage, Some(permit))
    }

    fn wanted(shares: &mut QueueShares, permits: usize) -> Vec<usize> {
        let mut wanted = vec![0; shares.list.len()];
        for (at, count) in shares.divide(permits) {
            wanted[at] = count;
        }
        wanted
    }

    #[tokio::test]
    async fn a_lone_share_gets_all_permits_and_several_share_alike() {
        assert_eq!(wanted(&mut shares(1), SLOTS), [SLOTS]);
        assert_eq!(wanted(&mut shares(4), SLOTS), [5; 4]);
        assert_eq!(wanted(&mut shares(30), SLOTS).iter().sum::<usize>(), SLOTS);
    }

    /// A share with long jobs keeps its permits; new permits go to the other share until both hold
    /// equally many.
    #[tokio::test]
    async fn the_share_that_holds_less_is_fetched_from_first() {
        let (mut shares, permits) = (shares(2), Arc::new(Semaphore::new(100)));
        let _held: Vec<FetchPermit> = (0..8).map(|_| take(&shares, 0, &permits)).collect();
        assert_eq!(wanted(&mut shares, 4), [0, 4]);
        assert_eq!(wanted(&mut shares, 12), [2, 10]);
    }

    /// Prefetched jobs do not lower a share's priority: they take no additional worker time.
    #[tokio::test]
    async fn prefetched_short_jobs_do_not_count_as_slots() {
        let (mut shares, permits) = (shares(2), Arc::new(Semaphore::new(1_000)));
        let first = take(&shares, 0, &permits);
        first.observe(Duration::from_micros(100));
        let long = take(&shares, 1, &permits);
        long.observe(Duration::from_secs(15));
        let _short: Vec<FetchPermit> = (0..180).map(|_| take(&shares, 0, &permits)).collect();
        let _longs: Vec<FetchPermit> = (0..9).map(|_| take(&shares, 1, &permits)).collect();
        assert_eq!(wanted(&mut shares, 10), [10, 0], "the long jobs hold half of the slots already");
    }

    /// 20 slots complete 8 jobs of 5 ms in the prefetch time.
    #[tokio::test]
    async fn shares_of_short_jobs_take_turns() {
        let (mut shares, permits) = (shares(2), Arc::new(Semaphore::new(100)));
        for at in 0..2 {
            take(&shares, at, &permits).observe(Duration::from_millis(5));
        }
        let first = wanted(&mut shares, 4);
        let served = first.iter().position(|&jobs| jobs == 4).expect("one share gets all four permits");
        let _held: Vec<FetchPermit> = (0..4).map(|_| take(&shares, served, &permits)).collect();
        assert_eq!(wanted(&mut shares, 4)[1 - served], 4, "the next turn goes to the other share");
        assert_eq!(wanted(&mut shares, 12).iter().sum::<usize>(), 12);
    }

    /// A share that receives one job at a time is always due, but must not take the permits of the
    /// others.
    #[tokio::test]
    async fn a_share_with_few_jobs_does_not_take_the_permits_of_the_others() {
        let mut shares = shares(2);
        shares.fetched(0, SLOTS, 1, Duration::ZERO);
        assert_eq!(wanted(&mut shares, SLOTS), [2, 18]);
        shares.fetched(0, 2, 2, Duration::ZERO);
        assert_eq!(wanted(&mut shares, SLOTS), [10, 10], "a full response raises the estimate");
    }

    #[tokio::test]
    async fn some_slots_are_left_to_other_shares_with_recent_work() {
        let (mut shares, permits) = (shares(2), Arc::new(Semaphore::new(100)));
        shares.fetched(1, 1, 1, Duration::from_mins(1));
        drop(take(&shares, 1, &permits));
        let mut held: Vec<FetchPermit> = Vec::new();
        for _ in 0..3 {
            let permits_wanted = wanted(&mut shares, SLOTS)[0];
            held.extend((0..permits_wanted).map(|_| take(&shares, 0, &permits)));
        }
        assert_eq!(held.len(), SLOTS - SLOTS / LEFT_TO_OTHERS);
        // A share that is held off is not ready until a permit is released.
        let early = tokio::time::timeout(Duration::from_millis(20), shares.ready()).await;
        assert!(early.is_err());
        held.pop();
        tokio::time::timeout(Duration::from_secs(5), shares.ready()).await.expect("the permit wakes the share");
        assert_eq!(wanted(&mut shares, SLOTS), [1, 0]);
    }

    #[tokio::test]
    async fn an_empty_share_becomes_due_after_a_notification_or_in_time() {
        let mut shares = shares(2);
        shares.fetched(0, 0, 0, Duration::from_mins(1));
        shares.fetched(1, 0, 0, Duration::from_millis(30));
        assert_eq!(wanted(&mut shares, SLOTS), [0, 0]);
        tokio::time::timeout(Duration::from_secs(5), shares.ready()).await.expect("the poll becomes due");
        assert_eq!(wanted(&mut shares, SLOTS), [0, SLOTS]);
        let shard = shares.shard(0).clone();
        shares.notifications.notify(&shard);
        assert_eq!(wanted(&mut shares, SLOTS), [10, 10]);
    }
}
