//! Whether PostgreSQL has fewer connections for a role than its processes need.
//!
//! Invariant: while connections are scarce, no process keeps one that it does not use, and none
//! keeps one for long, so that all processes make progress in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long scarcity lasts after the last sign of it, so that the state does not flap at a limit
/// that is only just reached.
const LASTS: Duration = Duration::from_secs(30);
/// While connections are scarce, a connection older than this is closed after use, so that another
/// process may open one.
pub(super) const TURN: Duration = Duration::from_millis(500);

/// While connections are scarce, the process counts as working for this long after a check that got
/// a connection.
const WORKS: Duration = Duration::from_secs(20);

/// Shared by all connections of a role.
#[derive(Clone, Debug)]
pub(crate) struct Scarcity {
    started: Instant,
    /// End of the scarcity in milliseconds after `started`; 0 for none.
    until: Arc<AtomicU64>,
    /// End of the time for which a successful check counts, likewise.
    works_until: Arc<AtomicU64>,
}

impl Default for Scarcity {
    fn default() -> Self {
        Self { started: Instant::now(), until: Arc::default(), works_until: Arc::default() }
    }
}

impl Scarcity {
    /// Records that a connection was refused, or that almost none are free.
    pub(super) fn note(&self) {
        self.note_at(self.started.elapsed());
    }

    /// Whether connections are scarce.
    pub(super) fn holds(&self) -> bool {
        self.holds_at(self.started.elapsed())
    }

    /// Records that a check got a connection.
    pub(super) fn note_work(&self) {
        self.note_work_at(self.started.elapsed());
    }

    /// Whether connections are scarce, but the process still works with the existing ones.
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
    /// The last time at which the scarcity still holds.
    const LAST: Duration = LASTS.saturating_sub(BRIEF);

    #[test]
    fn scarcity_lasts_for_a_time_after_the_last_failure() {
        let scarcity = Scarcity::default();
        assert!(!scarcity.holds_at(Duration::ZERO));
        scarcity.note_at(Duration::ZERO);
        assert!(scarcity.clone().holds_at(LAST));
        scarcity.note_at(LAST);
        assert!(scarcity.holds_at(LAST + LAST));
        assert!(!scarcity.holds_at(LAST + LASTS));
    }

    #[test]
    fn scarcity_is_survived_while_checks_get_connections() {
        let scarcity = Scarcity::default();
        scarcity.note_work_at(Duration::ZERO);
        assert!(!scarcity.is_survived_at(Duration::ZERO), "nothing is scarce");
        scarcity.note_at(Duration::ZERO);
        assert!(scarcity.is_survived_at(WORKS.saturating_sub(BRIEF)));
        assert!(scarcity.holds_at(WORKS) && !scarcity.is_survived_at(WORKS));
    }
}
