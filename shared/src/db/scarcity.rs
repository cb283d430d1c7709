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
        self.until.store(self.elapsed_ms(LASTS), Ordering::Relaxed);
    }

    /// Whether connections are scarce.
    pub(super) fn holds(&self) -> bool {
        self.is_before(&self.until)
    }

    /// Notes that a check got a connection.
    pub(super) fn note_work(&self) {
        self.works_until.store(self.elapsed_ms(WORKS), Ordering::Relaxed);
    }

    /// Whether connections are scarce and work goes on with those there are.
    pub(super) fn is_survived(&self) -> bool {
        self.holds() && self.is_before(&self.works_until)
    }

    fn is_before(&self, end: &AtomicU64) -> bool {
        let end = end.load(Ordering::Relaxed);
        end > 0 && self.elapsed_ms(Duration::ZERO) < end
    }

    fn elapsed_ms(&self, more: Duration) -> u64 {
        u64::try_from((self.started.elapsed() + more).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_a_while_after_its_last_sign() {
        let scarcity = Scarcity::default();
        assert!(!scarcity.holds());
        scarcity.note();
        tokio::time::advance(LASTS - Duration::from_millis(1)).await;
        assert!(scarcity.clone().holds());
        scarcity.note();
        tokio::time::advance(LASTS - Duration::from_millis(1)).await;
        assert!(scarcity.holds());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!scarcity.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_survived_while_a_check_gets_a_connection_now_and_then() {
        let scarcity = Scarcity::default();
        scarcity.note_work();
        assert!(!scarcity.is_survived(), "nothing is scarce");
        scarcity.note();
        assert!(scarcity.is_survived());
        tokio::time::advance(WORKS).await;
        assert!(scarcity.holds() && !scarcity.is_survived());
    }
}
