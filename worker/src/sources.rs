//! Where jobs come from, and how the places are shared: a source is a queue, or each shard of one that is split.
//!
//! Invariant: the next place goes to the source that has the smallest part of what it would hold alone, so neither many jobs nor long
//! ones give a queue more worker time than another that has work too. A source that is known to be empty is not asked until it is
//! said to have more. Next: [`crate::fetcher`], which asks.

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

/// A source that had work within this time is taken to have some again soon.
const LATELY: Duration = Duration::from_secs(1);
/// One of so many slots is left to each of the others that had work lately, up to half of all.
const LEFT_TO_OTHERS: usize = 8;

/// The sources of a worker.
pub struct Sources {
    list: Vec<Source>,
    slots: usize,
    /// Which goes first among equals.
    turn: usize,
    wake: Arc<Wake>,
}

struct Source {
    shard: Shard,
    usage: Arc<Usage>,
    /// When it is to be asked next, if nothing wakes it before.
    ask_at: Instant,
    /// How many jobs it likely has: places that it cannot fill are lost to the others for this round.
    likely: usize,
}

/// A source that is worth asking.
struct Candidate {
    at: usize,
    /// What it may take.
    room: usize,
    held: usize,
    /// What it would hold alone.
    alone: usize,
    /// How many places it takes at a time.
    turn: usize,
    wanted: usize,
}

impl Sources {
    /// Sources of a worker with so many slots, all worth asking.
    pub fn new(shards: Vec<Shard>, slots: usize, wake: Arc<Wake>) -> Self {
        let source = |shard| Source {
            shard,
            usage: Arc::new(Usage::new(Arc::clone(&wake))),
            ask_at: Instant::now(),
            likely: usize::MAX,
        };
        Self { list: shards.into_iter().map(source).collect(), slots, turn: 0, wake }
    }

    /// The shard of a source.
    pub fn shard(&self, at: usize) -> &Shard {
        &self.list[at].shard
    }

    /// Waits until one of them is worth asking.
    pub async fn ready(&mut self) {
        loop {
            self.hear();
            let now = Instant::now();
            let active = self.active();
            let open = self.list.iter().filter(|source| source.room(self.slots, active) > 0);
            match open.map(|source| source.ask_at).min() {
                Some(at) if at <= now => return,
                // Elapsed is as good as heard.
                Some(at) => drop(timeout_at(at, self.wake.heard()).await),
                // All hold what they may: the next place that is given back wakes.
                None => self.wake.heard().await,
            }
        }
    }

    /// Shares places between the sources that are worth asking: which to ask for how many.
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

    /// Notes what a source gave of how many wanted jobs, and when it is worth asking again.
    pub fn answered(&mut self, at: usize, wanted: usize, gave: usize, again_in: Duration) {
        self.list[at].likely = if gave < wanted { (2 * gave).max(1) } else { usize::MAX };
        self.ask_again(at, again_in);
    }

    /// Notes when a source is worth asking again whose answer says nothing of how many jobs it has.
    pub fn ask_again(&mut self, at: usize, again_in: Duration) {
        self.list[at].ask_at = Instant::now() + again_in;
    }

    /// The next place that is given back makes all of them worth asking.
    pub fn hold_off(&self) {
        self.wake.hold_off();
    }

    /// Takes a place for a job of a source.
    pub fn place(&self, at: usize, permit: OwnedSemaphorePermit) -> Place {
        Place::taken(&self.list[at].usage, permit)
    }

    /// What they hold, for those who lease beside the fetcher.
    pub fn usages(&self) -> Usages {
        Usages::new(self.list.iter().map(|source| (source.shard.clone(), Arc::clone(&source.usage))))
    }

    /// Those that were said to have work are worth asking now.
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
        // One after the other: with many short jobs each, to ask all of them for a few was most of the work.
        let turn = (ahead / 2).max(1);
        Candidate { at, room: source.room(self.slots, active), held, alone: self.slots + ahead, turn, wanted: 0 }
    }

    /// How many had work lately.
    fn active(&self) -> usize {
        self.list.iter().filter(|source| source.worked_lately()).count()
    }
}

impl Source {
    fn worked_lately(&self) -> bool {
        self.usage.worked_within(LATELY)
    }

    /// How many of its jobs are worth holding beyond the slots.
    fn ahead(&self, slots: usize) -> usize {
        capacity::ahead(slots, self.usage.average_us())
    }

    /// How many places it may take: some slots are left to the others that had work lately (`active` of all), so that long jobs, taken
    /// while those happened to have none, do not make them wait for their end.
    fn room(&self, slots: usize, active: usize) -> usize {
        let others = active - usize::from(self.worked_lately());
        let left = (others * (slots / LEFT_TO_OTHERS).max(1)).min(slots / 2);
        self.usage.room(slots - left + self.ahead(slots))
    }
}

impl Candidate {
    /// Which part of what it would hold alone it has.
    fn part(&self) -> f64 {
        fraction(self.held + self.wanted, self.alone)
    }
}

#[expect(clippy::cast_precision_loss, reason = "both are thousands at the most")]
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
        sources.place(at, Arc::clone(places).try_acquire_owned().expect("there are enough"))
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

    /// The one with long jobs holds on to its places; the next ones go to the other until both have as many.
    #[tokio::test]
    async fn who_holds_less_is_asked_first() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(100)));
        let _held: Vec<Place> = (0..8).map(|_| take(&sources, 0, &permits)).collect();
        assert_eq!(wanted(&mut sources, 4), [0, 4]);
        assert_eq!(wanted(&mut sources, 12), [2, 10]);
    }

    /// What is fetched ahead of the slots is no reason to be asked later: it takes no more worker time.
    #[tokio::test]
    async fn short_jobs_that_are_held_ahead_do_not_count_as_slots() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(1_000)));
        let first = take(&sources, 0, &permits);
        first.observe(Duration::from_micros(100));
        let long = take(&sources, 1, &permits);
        long.observe(Duration::from_secs(15));
        let _short: Vec<Place> = (0..180).map(|_| take(&sources, 0, &permits)).collect();
        let _longs: Vec<Place> = (0..9).map(|_| take(&sources, 1, &permits)).collect();
        assert_eq!(wanted(&mut sources, 10), [10, 0], "half of the slots are held by the long ones already");
    }

    /// 20 slots work off 8 jobs of 5 ms in the time for which is fetched ahead.
    #[tokio::test]
    async fn sources_of_short_jobs_take_turns() {
        let (mut sources, permits) = (sources(2), Arc::new(Semaphore::new(100)));
        for at in 0..2 {
            take(&sources, at, &permits).observe(Duration::from_millis(5));
        }
        let first = wanted(&mut sources, 4);
        let served = first.iter().position(|&jobs| jobs == 4).expect("one of them gets all of four places");
        let _held: Vec<Place> = (0..4).map(|_| take(&sources, served, &permits)).collect();
        assert_eq!(wanted(&mut sources, 4)[1 - served], 4, "then it is the other's turn");
        assert_eq!(wanted(&mut sources, 12).iter().sum::<usize>(), 12);
    }

    /// It is asked all the time, because somebody always brings it one more job.
    #[tokio::test]
    async fn who_has_little_is_not_given_the_places_of_the_others() {
        let mut sources = sources(2);
        sources.answered(0, SLOTS, 1, Duration::ZERO);
        assert_eq!(wanted(&mut sources, SLOTS), [2, 18]);
        sources.answered(0, 2, 2, Duration::ZERO);
        assert_eq!(wanted(&mut sources, SLOTS), [10, 10], "it has more than it had");
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
        // Held off, it is not ready; a place that is given back makes it so.
        let early = tokio::time::timeout(Duration::from_millis(20), sources.ready()).await;
        assert!(early.is_err());
        held.pop();
        tokio::time::timeout(Duration::from_secs(5), sources.ready()).await.expect("it is woken");
        assert_eq!(wanted(&mut sources, SLOTS), [1, 0]);
    }

    #[tokio::test]
    async fn an_empty_source_is_asked_again_when_it_is_woken_or_in_time() {
        let mut sources = sources(2);
        sources.answered(0, 0, 0, Duration::from_mins(1));
        sources.answered(1, 0, 0, Duration::from_millis(30));
        assert_eq!(wanted(&mut sources, SLOTS), [0, 0]);
        tokio::time::timeout(Duration::from_secs(5), sources.ready()).await.expect("its time comes");
        assert_eq!(wanted(&mut sources, SLOTS), [0, SLOTS]);
        let shard = sources.shard(0).clone();
        sources.wake.up(Some(&shard));
        assert_eq!(wanted(&mut sources, SLOTS), [10, 10]);
    }
}
