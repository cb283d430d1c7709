//! Redis's clock relative to the process's, and call deadlines in Redis time.
//!
//! Invariant: a deadline is never later than the caller's own timeout, so a Redis that was frozen
//! until after the timeout leases nothing to the caller. After a slow response the deadline may be
//! earlier, which costs one empty fetch.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

const UNKNOWN: i64 = i64::MIN;

/// Lower and upper bound on the offset of Redis's clock from this process's, from the last
/// response.
pub(super) struct RedisClock {
    started: Instant,
    ahead_ms: AtomicI64,
    at_most_ms: AtomicI64,
}

impl RedisClock {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), ahead_ms: AtomicI64::new(UNKNOWN), at_most_ms: AtomicI64::new(UNKNOWN) }
    }

    /// Whether a response has provided Redis's time.
    pub(super) fn is_known(&self) -> bool {
        self.ahead_ms.load(Ordering::Relaxed) != UNKNOWN
    }

    /// Deadline of a call that begins now, in ms of Redis time; 0 while Redis's time is unknown.
    pub(super) fn until(&self, patience: Duration) -> i64 {
        match self.ahead_ms.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            ahead => {
                ahead + self.elapsed_ms(Instant::now()) + i64::try_from(patience.as_millis()).unwrap_or(i64::MAX / 4)
            }
        }
    }

    /// Upper bound on the time since `redis_ms`; [`Duration::MAX`] while Redis's time is unknown.
    pub(super) fn age(&self, redis_ms: i64) -> Duration {
        match self.at_most_ms.load(Ordering::Relaxed) {
            UNKNOWN => Duration::MAX,
            ahead => {
                Duration::from_millis(u64::try_from(ahead + self.elapsed_ms(Instant::now()) - redis_ms).unwrap_or(0))
            }
        }
    }

    /// Lower bound on Redis's current time; `told_ms` is an earlier time of Redis.
    pub(super) fn now_ms(&self, told_ms: i64) -> i64 {
        match self.ahead_ms.load(Ordering::Relaxed) {
            UNKNOWN => told_ms,
            ahead => told_ms.max(ahead + self.elapsed_ms(Instant::now())),
        }
    }

    /// Records a response. Redis read its clock after the request was sent and before the response
    /// arrived, which bounds the offset from both sides.
    pub(super) fn observe(&self, redis_ms: i64, asked: Instant) {
        self.ahead_ms.store(redis_ms - self.elapsed_ms(Instant::now()), Ordering::Relaxed);
        self.at_most_ms.store(redis_ms - self.elapsed_ms(asked), Ordering::Relaxed);
    }

    fn elapsed_ms(&self, at: Instant) -> i64 {
        i64::try_from(at.duration_since(self.started).as_millis()).unwrap_or(i64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_given_before_the_first_observation() {
        assert_eq!(RedisClock::new().until(Duration::from_secs(2)), 0);
    }

    #[test]
    fn a_deadline_is_in_redis_time_and_not_too_late() {
        let clock = RedisClock::new();
        clock.observe(1_000_000, Instant::now());
        let until = clock.until(Duration::from_secs(2));
        assert!((1_002_000..1_002_500).contains(&until), "{until}");
    }

    #[test]
    fn an_earlier_time_is_advanced() {
        let clock = RedisClock::new();
        assert_eq!(clock.now_ms(1_000_000), 1_000_000);
        clock.observe(1_000_000, Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now_ms(999_000) >= 1_000_019, "{}", clock.now_ms(999_000));
        assert_eq!(clock.now_ms(2_000_000), 2_000_000, "a later time is returned unchanged");
    }

    /// The age includes the time that the response was in transit.
    #[test]
    fn an_age_is_not_underestimated() {
        let (clock, under_way) = (RedisClock::new(), Duration::from_millis(50));
        assert_eq!(clock.age(1_000_000), Duration::MAX);
        std::thread::sleep(under_way);
        clock.observe(1_000_000, clock.started);
        assert!(clock.age(1_000_000) >= under_way, "{:?}", clock.age(1_000_000));
        clock.observe(1_000_000, Instant::now());
        assert!(clock.age(1_000_000) < under_way, "{:?}", clock.age(1_000_000));
    }
}
