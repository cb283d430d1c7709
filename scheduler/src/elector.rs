//! Acquires leadership, renews it, and tracks when it ends.
//!
//! Invariant: a leader stops acting before its term expires in PostgreSQL: the time of a renewal
//! counts from just before its query was sent, on the monotonic clock. [`shared::leadership`] shows
//! why a process that was frozen between check and action does no harm.

use std::time::Duration;

use shared::leadership::{Candidate, Term};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a term lasts after its last renewal, and so how long a dead leader delays its
/// successor.
pub const TERM_TTL: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_millis(500);

/// A term that this process holds, and until when it counts as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Fences writes to the ledger.
    pub term: Term,
    until: Instant,
}

/// The current term, as the services receive it.
pub type Leadership = watch::Receiver<Option<Leading>>;

impl Leading {
    /// Whether the process may still act as the leader.
    pub fn is_current(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Campaigns for leadership until `stop`, then resigns so that the next scheduler takes over at
/// once.
pub async fn elect(candidate: Candidate, publish: watch::Sender<Option<Leading>>, stop: CancellationToken) {
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let requested_at = Instant::now();
        match timeout(TERM_TTL, candidate.campaign()).await {
            Ok(Ok(term)) => announce(&publish, term.map(|term| Leading { term, until: requested_at + TERM_TTL })),
            Ok(Err(error)) => tracing::debug!(%error, "could not acquire or renew leadership"),
            Err(_elapsed) => tracing::debug!("acquiring or renewing leadership timed out"),
        }
    }
    publish.send_replace(None);
    if let Err(error) = candidate.resign().await {
        tracing::debug!(%error, "could not resign; the term will expire");
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
