//! Running the services, each at its own pace, while this process leads.
//!
//! Invariant: a service that fails, or is slow, stops neither itself nor the others.

use std::{fmt::Debug, future::Future, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::elector::{Leadership, Leading};

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

/// Runs a service until `stop`.
pub async fn maintain<S: Service>(mut service: S, leadership: Leadership, stop: CancellationToken) {
    let mut ticks = interval(service.interval());
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
