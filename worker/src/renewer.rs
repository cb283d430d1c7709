//! Keeping leases alive, and letting go of runs that nobody waits for any more.
//!
//! Invariant: renewal is frequent enough that a rebuild's grace sees every live holder at least once (see
//! [`shared::queue::reconcile`]); a holder that hears that its lease is lost cancels the run. A cancellation whose notice was lost
//! (the connection was down, or whoever cancelled died before it told) is found in the ledger.

use std::time::Duration;

use shared::queue::consumer::Consumer;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::holdings::Holdings;

/// A rebuild's grace is longer than two of these.
const LONGEST_INTERVAL: Duration = Duration::from_millis(500);

/// Runs of this age are looked up this often: short ones end before, and cost nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Renews until `stop`.
pub async fn renew(consumer: Consumer, holdings: Holdings, lease: Duration, stop: CancellationToken) {
    let mut ticks = interval((lease / 4).min(LONGEST_INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        renew_once(&consumer, &holdings).await;
    }
}

/// Looks up until `stop` whether the ledger still waits for what runs.
pub async fn check(consumer: Consumer, holdings: Holdings, stop: CancellationToken) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let runs = holdings.older_than(CHECK_INTERVAL);
        if runs.is_empty() {
            continue;
        }
        let (ids, attempts): (Vec<_>, Vec<_>) = runs.iter().map(|(id, attempt, _)| (*id, *attempt)).unzip();
        match consumer.unwanted(&ids, &attempts).await {
            Ok(unwanted) => {
                for (id, _, token) in runs.iter().filter(|(id, ..)| unwanted.contains(id)) {
                    tracing::debug!(job_id = %id, "nobody waits for the run any more");
                    holdings.cancel_if(*id, *token);
                }
            }
            Err(error) => tracing::debug!(%error, "runs could not be looked up now"),
        }
    }
}

async fn renew_once(consumer: &Consumer, holdings: &Holdings) {
    for (shard, held) in holdings.by_shard() {
        match consumer.renew(&shard, &held, |id, token| holdings.may_assert(id, token)).await {
            Ok(lost) => {
                for lease in held.iter().filter(|lease| lost.contains(&lease.id)) {
                    // A job may have finished while the answer was on its way; then there is nothing left to cancel.
                    tracing::debug!(job_id = %lease.id, "the lease is lost");
                    holdings.cancel_if(lease.id, lease.token);
                }
            }
            Err(error) => tracing::debug!(%shard, %error, "leases could not be renewed now"),
        }
    }
}
