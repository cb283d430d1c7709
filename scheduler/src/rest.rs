//! Pauses after work whose duration grows with the amount of data, so it uses only a small part of
//! PostgreSQL's time.

use std::time::Duration;

use tokio::time::Instant;

/// Ratio of the pause to the duration of the preceding work.
const TIMES: u32 = 20;

/// The pause between two runs of one piece of work.
pub struct Rest {
    until: Instant,
    longest: Duration,
}

impl Rest {
    /// No pause yet; pauses never exceed `longest`.
    pub fn at_most(longest: Duration) -> Self {
        Self { until: Instant::now(), longest }
    }

    /// Whether the next run may start.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Starts a pause after work of this duration.
    pub fn begin(&mut self, took: Duration) {
        self.until = Instant::now() + (took * TIMES).min(self.longest);
    }
}
