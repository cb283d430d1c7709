//! The source of time for every process, so that tests can set it.
//!
//! Invariant: no other file reads the operating system's date. Durations within one process are
//! measured with `tokio::time::Instant`, which is monotonic; a `Clock` is for times that are stored
//! or shown. Ids, which also carry a time, come from [`crate::ids`].

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

/// The id sequence of all system clocks of this process. It is shared so that ids ascend across all
/// clones.
static SYSTEM_IDS: AtomicU64 = AtomicU64::new(0);

/// A source of time. Cloning is cheap, and all clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    micros: AtomicI64,
    ids: AtomicU64,
}

impl Clock {
    /// The clock of the operating system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The current time, UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may read the time")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System => Utc::now(),
            Source::Manual(manual) => DateTime::from_timestamp_micros(manual.micros.load(Ordering::SeqCst))
                .unwrap_or(DateTime::<Utc>::MAX_UTC),
        }
    }

    /// The current time in milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> i64 {
        self.now().timestamp_millis()
    }

    /// The last id stamp issued under this clock. A manual clock has its own: otherwise a test set
    /// in the far future would push the ids of all other tests in the process there too.
    pub(crate) fn id_sequence(&self) -> &AtomicU64 {
        match &self.0 {
            Source::System => &SYSTEM_IDS,
            Source::Manual(manual) => &manual.ids,
        }
    }
}

/// Controls a manual [`Clock`], which otherwise stands still.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// A clock set to `start`, truncated to microseconds as in PostgreSQL.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self(Arc::new(Manual { micros: AtomicI64::new(start.timestamp_micros()), ids: AtomicU64::new(0) }))
    }

    /// The clock to pass to the code under test.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// Sets the clock to `time`, which may lie in the past, to test clock jumps.
    pub fn set(&self, time: DateTime<Utc>) {
        self.0.micros.store(time.timestamp_micros(), Ordering::SeqCst);
    }

    /// Moves the clock forward by `step`.
    pub fn advance(&self, step: Duration) {
        let micros = i64::try_from(step.as_micros()).unwrap_or(i64::MAX);
        self.0.micros.fetch_add(micros, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_manual_clock_changes_only_when_set() {
        let hand = ManualClock::new(noon());
        let clock = hand.clock();
        assert_eq!(clock.now(), noon());
        hand.advance(Duration::from_millis(1_500));
        assert_eq!(clock.clone().now_ms(), 1_800_000_001_500);
        hand.set(noon() - chrono::TimeDelta::days(1));
        assert_eq!(clock.now_ms(), 1_799_913_600_000);
    }

    #[test]
    fn the_system_clock_advances() {
        let clock = Clock::system();
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now() > before);
    }
}
