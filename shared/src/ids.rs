//! New ids: UUID version 7, which sort by creation order.
//!
//! Invariant: ids created under one clock of one process strictly ascend, even within a millisecond
//! and even when the clock steps back, so that keyset pages and partitions by id never skip a row.
//! This is method 3 of RFC 9562 §6.2: the 12 bits after the milliseconds hold the fraction of the
//! millisecond. The other 62 bits are random, so an id cannot be guessed from its neighbour. The
//! time comes from [`crate::clock`].

use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};
use uuid::{Builder, Uuid};

use crate::clock::Clock;

/// Steps of an id stamp in one millisecond (12 bits).
const STEPS_PER_MS: u64 = 1 << 12;

/// A new id, greater than every id created before under the same clock.
pub fn new_id(clock: &Clock) -> Uuid {
    id_from(next_stamp(clock))
}

/// The smallest id that can be created at `time`: the start of a search for ids by time.
pub fn first_id_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// Takes the next stamp: the current time if it has advanced, otherwise the last stamp plus one
/// step.
fn next_stamp(clock: &Clock) -> u64 {
    let now = stamp_of(clock.now());
    let last = clock
        .id_sequence()
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1)))
        .expect("the update always returns a value");
    now.max(last + 1)
}

fn stamp_of(time: DateTime<Utc>) -> u64 {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    let nanos_in_ms = u64::from(time.timestamp_subsec_nanos() % 1_000_000);
    millis * STEPS_PER_MS + nanos_in_ms * STEPS_PER_MS / 1_000_000
}

fn id_from(stamp: u64) -> Uuid {
    let step = (stamp % STEPS_PER_MS).to_be_bytes();
    let mut tail: [u8; 10] = rand::random();
    // A step has 12 bits, so the last two bytes hold it.
    tail[..2].copy_from_slice(&step[6..]);
    Builder::from_unix_timestamp_millis(stamp / STEPS_PER_MS, &tail).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_123).unwrap()
    }

    #[test]
    fn ids_are_version_7_and_carry_the_time() {
        let id = new_id(&ManualClock::new(start()).clock());
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos / 1_000_000), (1_800_000_000, 123));
    }

    #[test]
    fn ids_ascend_even_if_the_clock_stops_or_goes_back() {
        let hand = ManualClock::new(start());
        let clock = hand.clock();
        let mut last = new_id(&clock);
        for round in 0..10_000 {
            if round == 5_000 {
                hand.set(start() - chrono::TimeDelta::hours(1));
            }
            let next = new_id(&clock);
            assert!(next > last, "{next} follows {last}");
            last = next;
        }
        hand.set(start() + chrono::TimeDelta::seconds(10));
        assert!(new_id(&clock) > last);
    }

    #[test]
    fn threads_never_share_an_id() {
        let make = || (0..5_000).map(|_| new_id(&Clock::system())).collect::<Vec<_>>();
        let made: Vec<Vec<Uuid>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|ids| ids.is_sorted()));
        assert_eq!(made.iter().flatten().collect::<BTreeSet<_>>().len(), 20_000);
    }

    #[test]
    fn the_first_id_of_a_time_sorts_before_ids_created_then() {
        let hand = ManualClock::new(start());
        assert!(first_id_at(start()) <= new_id(&hand.clock()));
        let earlier = new_id(&hand.clock());
        hand.advance(Duration::from_millis(1));
        assert!(earlier < first_id_at(hand.clock().now()));
    }
}
