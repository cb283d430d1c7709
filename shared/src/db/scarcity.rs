//! Whether PostgreSQL has fewer connections for a role than its processes want.
//!
//! Invariant: while they are scarce no process keeps one that it does not use, and none keeps one for long, so that all
//! processes get on, each a little at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// After the last sign of it; so that a limit that is only just reached is not noted and forgotten all the time.
const LASTS: Duration = Duration::from_secs(30);
/// While connections are scarce one is closed after its use when it is older than this, and another process may open one.
pub(super) const TURN: Duration = Duration::from_millis(500);

/// While connections are scarce the process counts as working for so long after a check that got one.
const WORKS: Duration = Duration::from_secs(20);

/// Shared by the connections of a role.
#[derive(Clone, Debug)]
pub(crate) struct Scarcity {
    started: Instant,
    /// Until when, in milliseconds from `started`; 0 is never.
    until: Arc<AtomicU64>,
    /// Until when a check that got a connection counts, likewise.
    works_until: Arc<AtomicU64>,
}

impl Default for Scarcity {
    fn default() -> Self {
        Self { started: Instant::now(), until: Arc::default(), works_until: Arc::default() }
    }
}

impl Scarcity {
    /// Notes that a connection was refused, or that the last free one is in sight.
    pub(super) fn note(&self) {
        self.note_at(self.started.elapsed());
    }

    /// Whether connections are scarce.
    pub(super) fn holds(&self) -> bool {
        self.holds_at(self.started.elapsed())
    }

    /// Notes that a check got a connection.
    pub(super) fn note_work(&self) {
        self.note_work_at(self.started.elapsed());
    }

    /// Whether connections are scarce and work goes on with those there are.
    pub(super) fn is_survived(&self) -> bool {
        self.is_survived_at(self.started.elapsed())
    }

    fn note_at(&self, now: Duration) {
        self.until.store(milliseconds(now + LASTS), Ordering::Relaxed);
    }

    fn holds_at(&self, now: Duration) -> bool {
        milliseconds(now) < self.until.load(Ordering::Relaxed)
    }

    fn note_work_at(&self, now: Duration) {
        self.works_until.store(milliseconds(now + WORKS), Ordering::Relaxed);
    }

    fn is_survived_at(&self, now: Duration) -> bool {
        self.holds_at(now) && milliseconds(now) < self.works_until.load(Ordering::Relaxed)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_millis(1);
    /// The last time at which it still holds.
    const LAST: Duration = LASTS.saturating_sub(BRIEF);

    #[test]
    fn it_lasts_a_while_after_its_last_sign() {
        let scarcity = Scarcity::default();
        assert!(!scarcity.holds_at(Duration::ZERO));
        scarcity.note_at(Duration::ZERO);
        assert!(scarcity.clone().holds_at(LAST));
        scarcity.note_at(LAST);
        assert!(scarcity.holds_at(LAST + LAST));
        assert!(!scarcity.holds_at(LAST + LASTS));
    }

    #[test]
    fn it_is_survived_while_a_check_gets_a_connection_now_and_then() {
        let scarcity = Scarcity::default();
        scarcity.note_work_at(Duration::ZERO);
        assert!(!scarcity.is_survived_at(Duration::ZERO), "nothing is scarce");
        scarcity.note_at(Duration::ZERO);
        assert!(scarcity.is_survived_at(WORKS.saturating_sub(BRIEF)));
        assert!(scarcity.holds_at(WORKS) && !scarcity.is_survived_at(WORKS));
    }
}
