//! Keeping leases alive, and letting go of those that are lost.
//!
//! Invariant: renewal is frequent enough that a rebuild's grace sees every live holder at least once (see
//! [`shared::queue::reconcile`]); a holder that hears that its lease is lost cancels the run.

use std::time::Duration;

use shared::queue::Index;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::holdings::Holdings;

/// A rebuild's grace is longer than two of these.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);

/// Renews until `stop`.
pub async fn renew(index: Index, holdings: Holdings, lease: Duration, stop: CancellationToken) {
    let mut ticks = interval((lease / 4).min(LONGEST_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        renew_once(&index, &holdings, lease).await;
    }
}

async fn renew_once(index: &Index, holdings: &Holdings, lease: Duration) {
    for (shard, held) in holdings.by_shard() {
        match index.renew(&shard, lease, &held).await {
            Ok((_, lost)) => {
                for (id, token, _) in held.iter().filter(|(id, ..)| lost.contains(id)) {
                    // A job may have finished while the answer was on its way; then there is nothing left to cancel.
                    tracing::debug!(job_id = %id, "the lease is lost");
                    holdings.cancel_if(*id, *token);
                }
            }
            Err(error) => tracing::debug!(%shard, %error, "leases could not be renewed now"),
        }
    }
}
