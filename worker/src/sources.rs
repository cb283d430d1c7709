//! Queue shares: divides the fetch permits between the queues of a worker. A share is a queue, or
//! one shard of a sharded queue.
//!
//! Invariant: the next permit goes to the share with the smallest fraction of what it would hold
//! alone, so neither many jobs nor long jobs give a queue more worker time than another queue with
//! work. A share known to be empty is not polled until a notification announces work or its next
//! poll is due. Next: [`crate::fetcher`], which fetches.

use std::{sync::Arc, time::Duration};

use shared::queue::Shard;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use crate::{
    capacity,
    listener::Wake,
    places::{Place, Usage, Usages},
};

/// A share that had work within this time is expected to have more soon.
const RECENT_WINDOW: Duration = Duration::from_secs(1);
/// One in this many slots is left to each other share that had work recently, up to half of all
/// slots.
const LEFT_TO_OTHERS: usize = 8;

/// The queue shares of a worker.
pub struct Sources {
    list: Vec<Source>,
    slots: usize,
    /// Rotates which share comes first among equals.
    turn: usize,
    wake: Arc<Wake>,
}

struct Source {
    shard: Shard,
    usage: Arc<Usage>,
    /// Time of the next fetch unless a notification comes first.
    ask_at: Instant,
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

impl Sources {
    /// Shares of a worker with this many slots, all due for a fetch.
    pub fn new(shards: Vec<Shard>, slots: usize, wake: Arc<Wake>) -> Self {
        let source = |shard| Source {
            shard,
            usage: Arc::new(Usage::new(Arc::clone(&wake))),
            ask_at: Instant::now(),
            likely: usize::MAX,
        };
        Self { list: shards.into_iter().map(source).collect(), slots, turn: 0, wake }
    }

    /// The shard of a share.
    pub fn shard(&self, at: usize) -> &Shard {
        &self.list[at].shard
    }

    /// Waits until a share is due for a fetch.
    pub async fn ready(&mut self) {
        loop {
            self.hear();
            let now = Instant::now();
            let active = self.active();
            let open = self.list.iter().filter(|source| source.room(self.slots, active) > 0);
            match open.map(|source| source.ask_at).min() {
                Some(at) if at <= now => return,
                // A timeout counts as a notification.
                Some(at) => drop(timeout_at(at, self.wake.heard()).await),
                // All shares hold as many permits as they may: the next released permit wakes this
                // task.
                None => self.wake.heard().await,
            }
        }
    }

    /// Divides permits between the due shares: returns pairs of a share's index and the number of
    /// jobs to fetch.
    pub fn share(&mut self, places: usize) -> Vec<(usize, usize)> {
        self.hear();
        self.turn += 1;
        let (now, count) = (Instant::now(), self.list.len());
        let active = self.active();
        let order = (0..count).map(|at| (self.turn + at) % count);
        let mut candidates: Vec<Candidate> =
            order.filter(|&at| self.list[at].ask_at <= now).map(|at| self.candidate(at, active)).collect();
        if let [only] = candidates.as_slice() {
            return vec![(only.at, places.min(only.room))].into_iter().filter(|(_, wanted)| *wanted > 0).collect();
        }
        for candidate in &mut candidates {
            candidate.room = candidate.room.min(self.list[candidate.at].likely);
        }
        let mut left = places;
        while left > 0 {
            let open = candidates.iter_mut().filter(|candidate| candidate.wanted < candidate.room);
            let Some(least) = open.min_by(|one, other| one.part().total_cmp(&other.part())) else { break };
            let taken = least.turn.min(least.room - least.wanted).min(left);
            least.wanted += taken;
            left -= taken;
        }
        let asked = candidates.iter().filter(|candidate| candidate.wanted > 0);
        asked.map(|candidate| (candidate.at, candidate.wanted)).collect()
    }

    /// Records how many of the `wanted` jobs a share returned, and when to fetch from it again.
    pub fn answered(&mut self, at: usize, wanted: usize, gave: usize, again_in: Duration) {
        self.list[at].likely = if gave < wanted { (2 * gave).max(1) } else { usize::MAX };
        self.ask_again(at, again_in);
    }

    /// Records when to fetch again after a response that does not show how many jobs the share has.
    pub fn ask_again(&mut self, at: usize, again_in: Duration) {
        self.list[at].ask_at = Instant::now() + again_in;
    }

    /// Makes all shares due as soon as a permit is released.
    pub fn hold_off(&self) {
        self.wake.hold_off();
    }

    /// Takes a permit for a job of a share.
    pub fn place(&self, at: usize, permit: OwnedSemaphorePermit) -> Place {
        Place::taken(&self.list[at].usage, permit)
    }

    /// The permit counts of all shares, for tasks that lease outside of the fetch loop.
    pub fn usages(&self) -> Usages {
        Usages::new(self.list.iter().map(|source| (source.shard.clone(), Arc::clone(&source.usage))))
    }

    /// Makes shares due for which a notification announced work.
    fn hear(&mut self) {
        for (at, source) in self.list.iter_mut().enumerate() {
            if self.wake.take(at) {
                source.ask_at = Instant::now();
            }
        }
    }

    fn candidate(&self, at: usize, active: usize) -> Candidate {
        let source = &self.list[at];
        let (held, ahead) = (source.usage.held(), source.ahead(self.slots));
        // Shares take turns: with many short jobs in each, fetching a few jobs from every share in
        // each round would be most of the work.
        let turn = (ahead / 2).max(1);
        Candidate { at, room: source.room(self.slots, active), held, alone: self.slots + ahead, turn, wanted: 0 }
    }

    /// How many shares had work recently.
    fn active(&self) -> usize {
        self.list.iter().filter(|source| source.worked_lately()).count()
    }
}

impl Source {
    fn worked_lately(&self) -> bool {
        self.usage.worked_within(RECENT_WINDOW)
    }

    /// How many of its jobs are worth holding beyond the slots.
    fn ahead(&self, slots: usize) -> usize {
        capacity::ahead(slots, self.usage.average_us())
    }

    /// How many permits the share may hold. Some slots are left to the other shares that had work
    /// recently (`active` counts all such shares), so jobs of those do not wait for long jobs that
    /// were leased while those shares happened to be empty.
    fn room(&self, slots: usize, active: usize) -> usize {
        let others = active - usize::from(self.worked_lately());
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

    const SLOTS: usize = 20;

    fn sources(count: usize) -> Sources {
        let shards: Vec<Shard> =
            (0..count).map(|at| Shard::whole(format!("queue_{at}").parse().expect("a name"))).collect();
        let wake = Arc::new(Wake::new(&shards));
        Sources::new(shards, SLOTS, wake)
    }

    fn take(sources: &Sources, at: usize, places: &Arc<Semaphore>) -> Place {
        sources.place(at, Arc::clone(places).try_acquire_owned().expect("a permit is free"))
    }

    fn wanted(sources: &mut Sources, places: usize) -> Vec<usize> {
        let mut wanted = vec![0; sources.list.len()];
        for (at, count) in sources.share(places) {
            wanted[at] = count;
        }
        wanted
    }

    #[tokio::test]
    async fn a_lone_source_gets_all_and_several_share_alike() {
        assert_eq!(wanted(&mut sources(1), SLOTS), [SLOTS]);
        assert_eq!(wanted(&mut sources(4), SLOTS), [5; 4]);
        assert_eq!(wanted(&mut sources(30), SLOTS).iter().sum::<usize>(), SLOTS);
    }

    /// A share with long jobs keeps its permits; new permits go to the other share until both hold
    /// equally many.
    #[tokio::test]
    async fn who_holds_less_is_asked_first() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(100)));
        let _held: Vec<Place> = (0..8).map(|_| take(&sources, 0, &permits)).collect();
        assert_eq!(wanted(&mut sources, 4), [0, 4]);
        assert_eq!(wanted(&mut sources, 12), [2, 10]);
    }

    /// Prefetched jobs do not lower a share's priority: they take no additional worker time.
    #[tokio::test]
    async fn short_jobs_that_are_held_ahead_do_not_count_as_slots() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(1_000)));
        let first = take(&sources, 0, &permits);
        first.observe(Duration::from_micros(100));
        let long = take(&sources, 1, &permits);
        long.observe(Duration::from_secs(15));
        let _short: Vec<Place> = (0..180).map(|_| take(&sources, 0, &permits)).collect();
        let _longs: Vec<Place> = (0..9).map(|_| take(&sources, 1, &permits)).collect();
        assert_eq!(wanted(&mut sources, 10), [10, 0], "the long jobs hold half of the slots already");
    }

    /// 20 slots complete 8 jobs of 5 ms in the prefetch time.
    #[tokio::test]
    async fn sources_of_short_jobs_take_turns() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(100)));
        for at in 0..2 {
            take(&sources, at, &permits).observe(Duration::from_millis(5));
        }
        let first = wanted(&mut sources, 4);
        let served = first.iter().position(|&jobs| jobs == 4).expect("one share gets all four permits");
        let _held: Vec<Place> = (0..4).map(|_| take(&sources, served, &permits)).collect();
        assert_eq!(wanted(&mut sources, 4)[1 - served], 4, "the next turn goes to the other share");
        assert_eq!(wanted(&mut sources, 12).iter().sum::<usize>(), 12);
    }

    /// A share that receives one job at a time is always due, but must not take the permits of the
    /// others.
    #[tokio::test]
    async fn who_has_little_is_not_given_the_places_of_the_others() {
        let mut sources = sources(2);
        sources.answered(0, SLOTS, 1, Duration::ZERO);
        assert_eq!(wanted(&mut sources, SLOTS), [2, 18]);
        sources.answered(0, 2, 2, Duration::ZERO);
        assert_eq!(wanted(&mut sources, SLOTS), [10, 10], "a full response raises the estimate");
    }

    #[tokio::test]
    async fn some_slots_are_left_to_others_that_had_work_lately() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(100)));
        sources.answered(1, 1, 1, Duration::from_mins(1));
        drop(take(&sources, 1, &permits));
        let mut held: Vec<Place> = Vec::new();
        for _ in 0..3 {
            let places = wanted(&mut sources, SLOTS)[0];
            held.extend((0..places).map(|_| take(&sources, 0, &permits)));
        }
        assert_eq!(held.len(), SLOTS - SLOTS / LEFT_TO_OTHERS);
        // A share that is held off is not ready until a permit is released.
        let early = tokio::time::timeout(Duration::from_millis(20), sources.ready()).await;
        assert!(early.is_err());
        held.pop();
        tokio::time::timeout(Duration::from_secs(5), sources.ready()).await.expect("the permit wakes the share");
        assert_eq!(wanted(&mut sources, SLOTS), [1, 0]);
    }

    #[tokio::test]
    async fn an_empty_source_is_asked_again_when_it_is_woken_or_in_time() {
        let mut sources = sources(2);
        sources.answered(0, 0, 0, Duration::from_mins(1));
        sources.answered(1, 0, 0, Duration::from_millis(30));
        assert_eq!(wanted(&mut sources, SLOTS), [0, 0]);
        tokio::time::timeout(Duration::from_secs(5), sources.ready()).await.expect("the poll becomes due");
        assert_eq!(wanted(&mut sources, SLOTS), [0, SLOTS]);
        let shard = sources.shard(0).clone();
        sources.wake.up(Some(&shard));
        assert_eq!(wanted(&mut sources, SLOTS), [10, 10]);
    }
}
