//! Estimates when a waiting job starts.
//!
//! Invariant: an estimate is given only where time alone leads to a start, and it is never in the
//! past.

use chrono::{DateTime, TimeDelta, Utc};

use super::{JobPosition, Reason};

/// Assumed run time while no job of the tenant has run yet.
const UNKNOWN_RUN_MS: f64 = 100.0;
/// A larger estimate would only suggest precision.
const FARTHEST_MS: f64 = 365.0 * 86_400_000.0;

pub(super) fn start(
    reason: Reason,
    run_at: DateTime<Utc>,
    now: DateTime<Utc>,
    ahead: Option<u64>,
    position: Option<&JobPosition>,
) -> Option<DateTime<Utc>> {
    match reason {
        Reason::WaitingOnJobs
        | Reason::BeingCancelled
        | Reason::QueuePaused
        | Reason::TenantPaused
        | Reason::NoWorker => None,
        Reason::NotDue | Reason::BackingOff | Reason::EndpointFailing => Some(run_at),
        Reason::TenantCap | Reason::TenantRate | Reason::BehindOwnJobs | Reason::Dispatching => {
            let position = position?;
            let wait_ms = position.wait_ms(ahead?).min(FARTHEST_MS);
            #[expect(clippy::cast_possible_truncation, reason = "at most a year of ms")]
            let wait = TimeDelta::milliseconds(wait_ms as i64);
            Some(now + wait)
        }
    }
}

impl JobPosition {
    /// By the tenant's share of the slots and the run time of its jobs, or by its rate if that is
    /// slower.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn wait_ms(&self, ahead: u64) -> f64 {
        let (ahead, weight) = (ahead as f64, f64::from(self.limits.weight));
        // Workers split their slots evenly over the shards that have work, regardless of the
        // tenants' weights.
        let slots = f64::from(self.slots) / f64::from(1 + self.other_shards);
        let share = slots * weight / (weight + self.other_weight);
        let parallel = self.limits.max_running.map_or(share, |cap| share.min(f64::from(cap))).max(f64::MIN_POSITIVE);
        let busy = if f64::from(self.running) >= parallel { 1.0 } else { 0.0 };
        let by_share = (ahead + busy) * self.average_ms.unwrap_or(UNKNOWN_RUN_MS) / parallel;
        let by_rate = self.limits.rate.map_or(0.0, |rate| {
            let missing = ahead + 1.0 - self.tokens.unwrap_or_default();
            (missing * 1_000.0 / rate.per_second).max(0.0)
        });
        by_share.max(by_rate)
    }
}

#[cfg(test)]
mod tests {
    use crate::queue::{
        IndexState,
        index::{JobPosition, Place},
        limits::{Limits, Rate},
    };

    fn position() -> JobPosition {
        JobPosition {
            state: IndexState::Ready,
            queue_paused: false,
            place: Place::Flow(9),
            limits: Limits::default(),
            running: 4,
            tokens: None,
            average_ms: Some(50.0),
            workers: 1,
            slots: 4,
            other_tenants: 0,
            other_weight: 0.0,
            other_shards: 0,
        }
    }

    fn about(position: &JobPosition, expected_ms: f64) {
        let wait_ms = position.wait_ms(9);
        assert!((wait_ms - expected_ms).abs() < 0.001, "{wait_ms}");
    }

    #[test]
    fn a_lone_tenant_has_all_slots() {
        about(&position(), 10.0 * 50.0 / 4.0);
    }

    #[test]
    fn a_tenant_among_others_has_its_weighted_share() {
        let limits = Limits { weight: 2, ..Limits::default() };
        about(&JobPosition { limits, other_tenants: 2, other_weight: 6.0, ..position() }, 10.0 * 50.0);
    }

    #[test]
    fn slots_are_divided_between_busy_shards() {
        about(&JobPosition { other_shards: 1, ..position() }, 10.0 * 50.0 / 2.0);
    }

    #[test]
    fn a_running_cap_and_a_rate_extend_the_estimate() {
        let limits = Limits { max_running: Some(2), ..Limits::default() };
        about(&JobPosition { limits, ..position() }, 10.0 * 50.0 / 2.0);
        let limits = Limits { rate: Some(Rate { per_second: 2.0, burst: 1 }), ..Limits::default() };
        about(&JobPosition { limits, tokens: Some(0.5), ..position() }, 4_750.0);
    }
}
