//! Runs the services, each at its own interval, while this process leads.
//!
//! Invariant: a service that fails or is slow does not stop itself or the others.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::elector::{Leadership, Leading};

/// Time between the first runs of two services. Intervals have common multiples: services that
/// start together would keep becoming due together, and a job that arrives at that instant would
/// wait for all of them.
const APART: Duration = Duration::from_millis(7);

/// The common interface of all services. `run_once` does one bounded piece of work.
pub trait Service: Send + 'static {
    /// Name in logs.
    const NAME: &'static str;
    /// The result of one run; the default is "nothing done".
    type Report: Debug + Default + PartialEq;

    /// Time from one run to the next.
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
    /// An empty set of services that run until `stop`.
    pub fn new(leadership: Leadership, stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), leadership, stop }
    }

    /// Starts a service.
    pub fn start(&mut self, service: impl Service) {
        let others = u32::try_from(self.running.len()).unwrap_or(0);
        let begin = Instant::now() + APART * others;
        self.running.spawn(maintain(service, begin, self.leadership.clone(), self.stop.clone()));
    }

    /// Waits until all services have ended.
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
                tracing::debug!(service = S::NAME, ?report, "service run completed");
            }
            (Err(error), false) => tracing::warn!(
                service = S::NAME,
                error = shared::error_text::with_causes(error.as_ref()),
                "service failed; retrying"
            ),
            (Ok(_), true) => tracing::info!(service = S::NAME, "service recovered"),
            _ => {}
        }
        failing = result.is_err();
    }
}
