//! Brings jobs into the index shortly before they are due.
//!
//! Invariant: the look-ahead is shorter than the producer's by [`CLOCK_MARGIN`]. A job that was due
//! just too late for the push at its commit falls into a later window, as long as the clocks of the
//! two machines differ by less than that margin.

use std::time::Duration;

use chrono::{DateTime, Utc};
use shared::queue::{enqueue::LOOK_AHEAD, repair::reconcile::Reconciler};

use crate::{elector::Leading, maintainer::Service};

/// Tolerated difference between the clocks of a producer and the scheduler.
const CLOCK_MARGIN: Duration = Duration::from_secs(10);
/// Jobs due within this time are promoted.
const AHEAD: Duration = LOOK_AHEAD.saturating_sub(CLOCK_MARGIN);

/// Promotes due jobs, window after window.
pub struct Promoter {
    reconciler: Reconciler,
    tick: Duration,
    /// The term and the end of the last window.
    reached: Option<(i64, DateTime<Utc>)>,
}

impl Promoter {
    /// A promoter that runs every `tick`.
    pub const fn new(reconciler: Reconciler, tick: Duration) -> Self {
        Self { reconciler, tick, reached: None }
    }
}

impl Service for Promoter {
    const NAME: &'static str = "promoter";
    type Report = u64;

    fn interval(&self) -> Duration {
        self.tick
    }

    async fn run_once(&mut self, leading: &Leading) -> anyhow::Result<u64> {
        let term = leading.term.number();
        // A new leader does not know its predecessor's last window, so it starts with all due jobs.
        let from = self.reached.filter(|(of, _)| *of == term).map_or(DateTime::UNIX_EPOCH, |(_, reached)| reached);
        let (reached, promoted) = self.reconciler.promote(from, AHEAD).await?;
        self.reached = Some((term, reached));
        Ok(promoted)
    }
}
