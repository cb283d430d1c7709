//! Whether the relay is usable: a circuit breaker for all mails of the process.
//!
//! Invariant: while the relay is unavailable, one attempt at a time checks whether it is back, with
//! pauses that double up to a maximum; all other mails fail immediately instead of occupying a slot
//! until the time-out. An outage does not count against any mail.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A relay that has answered within this time is available: it limits connections or had a brief
/// problem.
const RECENTLY: Duration = Duration::from_secs(2);

/// Known state of the relay.
#[derive(Debug)]
pub(super) struct RelayHealth {
    longest_pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    last_reply: Option<Instant>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    attempts: u32,
    next: Instant,
}

/// The relay is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away {
    /// Time until the next attempt.
    pub retry_in: Duration,
}

impl RelayHealth {
    pub fn new(longest_pause: Duration) -> Self {
        Self { longest_pause, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits an attempt if the relay is available or the next check is due.
    pub fn admit(&self) -> Result<(), Away> {
        let now = Instant::now();
        let mut state = self.state();
        let Some(outage) = &mut state.outage else { return Ok(()) };
        if now < outage.next {
            return Err(Away { retry_in: outage.next - now });
        }
        outage.attempts = outage.attempts.saturating_add(1);
        outage.next = now + self.pause(outage.attempts);
        Ok(())
    }

    /// Records that the relay could not be used. Returns whether that is an outage; it is not if
    /// another connection to the relay works.
    pub fn failed(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        if state.outage.is_none() && state.last_reply.is_some_and(|last| now - last < RECENTLY) {
            return false;
        }
        state.outage.get_or_insert(Outage { since: now, attempts: 1, next: now + FIRST_PAUSE.min(self.longest_pause) });
        true
    }

    /// Records that the relay answered a command of a mail.
    pub fn replied(&self) {
        let mut state = self.state();
        state.outage = None;
        state.last_reply = Some(Instant::now());
    }

    /// Duration of the current outage.
    pub fn away_for(&self) -> Option<Duration> {
        self.state().outage.as_ref().map(|outage| outage.since.elapsed())
    }

    fn pause(&self, attempts: u32) -> Duration {
        FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(20))).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let health = RelayHealth::new(Duration::from_secs(30));
        let pauses: Vec<u128> = (1..=9).map(|attempts| health.pause(attempts).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(health.pause(u32::MAX), Duration::from_secs(30));
    }

    #[tokio::test]
    async fn one_attempt_at_a_time_probes_the_relay() {
        let health = RelayHealth::new(Duration::from_millis(200));
        assert!(health.admit().is_ok() && health.failed());
        for _ in 0..2 {
            let away = health.admit().expect_err("away");
            tokio::time::sleep(away.retry_in).await;
            assert!(health.admit().is_ok(), "one looks");
            assert!(health.admit().is_err(), "the others wait");
            assert!(health.failed());
        }
        assert!(health.away_for() >= Some(Duration::from_millis(200)));
        health.replied();
        assert!(health.admit().is_ok() && health.away_for().is_none());
        assert!(!health.failed(), "another connection works");
    }
}
