//! Renews leases, and cancels runs whose outcome no longer counts.
//!
//! Invariant: renewals are frequent enough that every live holder renews at least once within the
//! grace period of a rebuild (see [`shared::queue::repair::reconcile`]). A holder whose lease is lost
//! cancels the run. If the notification of a cancellation was lost (the connection was down, or the
//! process that cancelled died before it published), the check against the ledger finds the
//! cancellation.

use std::time::Duration;

use shared::queue::dispatch::Consumer;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::held_leases::HeldLeases;

/// The grace period of a rebuild is longer than two of these.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);

/// Minimum age of the runs to check, and the interval of the checks: short runs end before and cost
/// nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Renews the held leases until `stop`.
pub async fn renew(consumer: Consumer, held_leases: HeldLeases, lease: Duration, stop: CancellationToken) {
    let mut ticks = interval((lease / 4).min(LONGEST_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        renew_once(&consumer, &held_leases).await;
    }
}

/// Checks until `stop` whether the ledger still expects the outcomes of the runs.
pub async fn check(consumer: Consumer, held_leases: HeldLeases, stop: CancellationToken) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let runs = held_leases.older_than(CHECK_INTERVAL);
        if runs.is_empty() {
            continue;
        }
        let attempts: Vec<_> = runs.iter().map(|lease| (lease.id, lease.attempt)).collect();
        match consumer.unexpected_runs(&attempts).await {
            Ok(unexpected) => {
                for lease in runs.iter().filter(|lease| unexpected.contains(&lease.id)) {
                    tracing::debug!(job_id = %lease.id, "cancelling a run whose outcome no longer counts");
                    held_leases.cancel_if(lease.id, lease.token);
                }
            }
            Err(error) => tracing::debug!(%error, "could not check runs against the ledger"),
        }
    }
}

async fn renew_once(consumer: &Consumer, held_leases: &HeldLeases) {
    for (shard, held) in held_leases.by_shard() {
        match consumer.renew(&shard, &held, |id, token| held_leases.may_assert(id, token)).await {
            Ok(lost) => {
                for (lease, _) in held.iter().filter(|(lease, _)| lost.contains(&lease.id)) {
                    // The job may have finished while the response was on its way; then there is no
                    // run left to cancel.
                    tracing::debug!(job_id = %lease.id, "lease lost");
                    held_leases.cancel_if(lease.id, lease.token);
                }
            }
            Err(error) => tracing::debug!(%shard, %error, "could not renew leases"),
        }
    }
}
