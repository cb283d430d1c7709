//! Becoming the leader, staying it, and knowing when one is not.
//!
//! Invariant: this process believes in its term no longer than the term is valid in the ledger. The belief ends on this
//! machine's monotonic clock, counted from before the renewal was asked for, so it ends first; that a process which was
//! frozen between looking and acting does no harm is argued in [`shared::leadership`].

use std::time::Duration;

use shared::leadership::{Candidate, Term};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a term lasts after its last renewal: what a dead leader's succession waits for.
pub const TERM_TTL: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_millis(500);

/// A term this process holds, and until when that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Fences what is written to the ledger.
    pub term: Term,
    until: Instant,
}

/// What the services watch.
pub type Leadership = watch::Receiver<Option<Leading>>;

impl Leading {
    /// Whether the term may still be believed in.
    pub fn is_current(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Runs for leadership until `stop`, then resigns so that the next one takes over at once.
pub async fn elect(candidate: Candidate, publish: watch::Sender<Option<Leading>>, stop: CancellationToken) {
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let asked = Instant::now();
        match timeout(TERM_TTL, candidate.campaign()).await {
            Ok(Ok(term)) => announce(&publish, term.map(|term| Leading { term, until: asked + TERM_TTL })),
            Ok(Err(error)) => tracing::debug!(%error, "the ledger could not be asked who leads"),
            Err(_elapsed) => tracing::debug!("the ledger did not say in time who leads"),
        }
    }
    publish.send_replace(None);
    if let Err(error) = candidate.resign().await {
        tracing::debug!(%error, "could not resign; the term will run out");
    }
}

fn announce(publish: &watch::Sender<Option<Leading>>, leading: Option<Leading>) {
    let before = publish.send_replace(leading);
    match (before, leading) {
        (None, Some(now)) => tracing::info!(term = now.term.number(), "leading"),
        (Some(then), None) => tracing::info!(term = then.term.number(), "no longer leading"),
        (Some(then), Some(now)) if then.term != now.term => tracing::info!(term = now.term.number(), "leading again"),
        _ => {}
    }
    metrics::gauge!(shared::telemetry::names::SCHEDULER_LEADER).set(if leading.is_some() { 1.0 } else { 0.0 });
}
