//! Pauses after work that takes longer the more there is, so that it takes no more than a small part of PostgreSQL's time.

use std::time::Duration;

use tokio::time::Instant;

/// A rest is so many times as long as the work before it.
const TIMES: u32 = 20;

/// The pause of one piece of work.
pub struct Rest {
    until: Instant,
    longest: Duration,
}

impl Rest {
    /// None yet, and never longer than `longest`.
    pub fn at_most(longest: Duration) -> Self {
        Self { until: Instant::now(), longest }
    }

    /// Whether the work may be done again.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Begins, after work that took so long.
    pub fn begin(&mut self, took: Duration) {
        self.until = Instant::now() + (took * TIMES).min(self.longest);
    }
}
