//! Makes the jobs of dead workers available again.
//!
//! Invariant: a lease that expired while it could not be renewed says nothing about its holder.
//! After any interruption (this process was not leading, or Redis did not answer), holders get time
//! to renew before any lease counts as expired.

use std::time::Duration;

use anyhow::Context as _;
use shared::{
    db::SystemDb,
    queue::{
        Index, QueueName,
        repair::rescue::{self, RescueReport},
    },
    telemetry::names,
};
use tokio::time::Instant;

use crate::{elector::Leading, maintainer::Service};

/// Longer than two renewals of a live holder (see `worker::lease::renewer`).
const RECOVERY: Duration = Duration::from_millis(1_200);

/// Looks for expired leases.
pub struct Rescuer {
    db: SystemDb,
    index: Index,
    queues: Vec<QueueName>,
    tick: Duration,
    last_success: Option<Instant>,
    rescue_after: Instant,
}

impl Rescuer {
    /// A rescuer that runs every `tick`.
    pub fn new(db: SystemDb, index: Index, queues: Vec<QueueName>, tick: Duration) -> Self {
        Self { db, index, queues, tick, last_success: None, rescue_after: Instant::now() }
    }

    /// Whether Redis has answered without a gap for long enough that every live holder has renewed.
    async fn holders_could_renew(&mut self) -> anyhow::Result<bool> {
        let started = Instant::now();
        self.index.ping().await?;
        let now = Instant::now();
        let gap = self.last_success.is_none_or(|last| now - last > self.tick * 3 + Duration::from_millis(200))
            || now - started > RECOVERY / 2;
        if gap {
            self.rescue_after = now + RECOVERY;
        }
        self.last_success = Some(now);
        Ok(now >= self.rescue_after)
    }
}

impl Service for Rescuer {
    const NAME: &'static str = "rescuer";
    type Report = RescueReport;

    fn interval(&self) -> Duration {
        self.tick
    }

    async fn run_once(&mut self, leading: &Leading) -> anyhow::Result<RescueReport> {
        let (mut total, mut outcome) = (RescueReport::default(), Ok(()));
        if !self.holders_could_renew().await? {
            return Ok(total);
        }
        for queue in &self.queues {
            match rescue::rescue(&self.db, &self.index, queue, &leading.term).await {
                Ok(report) => {
                    total.rescued += report.rescued;
                    total.poisoned += report.poisoned;
                    total.finished += report.finished;
                }
                // An error in one queue does not stop the others.
                Err(error) => outcome = outcome.and(Err(error).with_context(|| format!("queue {queue}"))),
            }
        }
        if outcome.is_ok() {
            // A long rescue is no interruption.
            self.last_success = Some(Instant::now());
        }
        if total.rescued + total.poisoned > 0 {
            tracing::warn!(rescued = total.rescued, poisoned = total.poisoned, "rescued jobs of lost workers");
            metrics::counter!(names::JOBS_RESCUED_TOTAL).increment(total.rescued + total.poisoned);
        }
        outcome.map(|()| total)
    }
}
