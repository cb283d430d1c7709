//! Running the services, each at its own pace, while this process leads.
//!
//! Invariant: a service that fails, or is slow, stops neither itself nor the others.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::elector::{Leadership, Leading};

/// From the first run of one service to that of the next. Intervals have common multiples: services that began together would be due together
/// again and again, and a job that comes at that instant would wait for all of them.
const APART: Duration = Duration::from_millis(7);

/// The one shape of all services: made with `new`, does one bounded piece of work in `run_once`.
pub trait Service: Send + 'static {
    /// For logs.
    const NAME: &'static str;
    /// What one run did; the default is "nothing".
    type Report: Debug + Default + PartialEq;

    /// How long from one run to the next.
    fn interval(&self) -> Duration;

    /// Does one piece of work as the leader of this term.
    fn run_once(&mut self, leading: &Leading) -> impl Future<Output = anyhow::Result<Self::Report>> + Send;
}

/// The services of a process.
pub struct Services {
    running: JoinSet<()>,
    leadership: Leadership,
    stop: CancellationToken,
}

impl Services {
    /// None yet; they are to run until `stop`.
    pub fn new(leadership: Leadership, stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), leadership, stop }
    }

    /// Starts a service.
    pub fn start(&mut self, service: impl Service) {
        let others = u32::try_from(self.running.len()).unwrap_or(0);
        let begin = Instant::now() + APART * others;
        self.running.spawn(maintain(service, begin, self.leadership.clone(), self.stop.clone()));
    }

    /// Waits until all have ended.
    pub async fn ended(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Runs a service from `begin` until `stop`.
async fn maintain<S: Service>(mut service: S, begin: Instant, leadership: Leadership, stop: CancellationToken) {
    let mut ticks = interval_at(begin, service.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let leading = *leadership.borrow();
        let Some(leading) = leading.filter(Leading::is_current) else { continue };
        let result = service.run_once(&leading).await;
        match (&result, failing) {
            (Ok(report), _) if *report != S::Report::default() => {
                tracing::debug!(service = S::NAME, ?report, "did its work");
            }
            (Err(error), false) => tracing::warn!(
                service = S::NAME,
                error = shared::error_text::with_causes(error.as_ref()),
                "failed; trying on"
            ),
            (Ok(_), true) => tracing::info!(service = S::NAME, "works again"),
            _ => {}
        }
        failing = result.is_err();
    }
}
