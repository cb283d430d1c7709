//! The policies: how many requests pass in which time, for each tier and for anonymous clients.
//!
//! Invariant: names are a promise to clients, who see them in `RateLimit-Policy` and in
//! `violated-policies`, and they are quoted in headers as they are: lower-case letters only.

use std::time::Duration;

use crate::tiers::Tier;

/// How a policy counts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Algorithm {
    /// One count for each window; windows begin at multiples of their length since 1970-01-01 UTC.
    FixedWindow,
    /// No span of the window's length contains more requests than the limit.
    SlidingWindow,
    /// A bucket of `limit` requests that is filled evenly within the window (GCRA).
    TokenBucket,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The name that clients see.
    pub name: &'static str,
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Requests per window.
    pub limit: u32,
    /// The window, in whole seconds.
    pub window: Duration,
}

/// Requests of anonymous clients, for each network.
pub const ANONYMOUS: Policy = sliding("anonymous", 50, HOUR);
/// The name of the policy that is a quota of the tier, rather than a limit of the rate.
pub const DAILY: &str = "daily";

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// How much faster than the average of its hour a credential may send requests.
const BURST_FACTOR: u32 = 20;
/// Requests that every credential may send at once.
const LEAST_BURST: u32 = 50;

/// The policy of each credential: [`BURST_FACTOR`] times the average of the tier's hour, and a
/// second of that at once, but at least [`LEAST_BURST`].
pub fn of_credential(tier: Tier) -> Policy {
    let per_hour = tier.limits().requests_per_hour * BURST_FACTOR;
    let seconds_in_hour = 3_600;
    let limit = per_hour.div_ceil(seconds_in_hour).max(LEAST_BURST);
    // Whole seconds, because headers show them.
    let window = Duration::from_secs((limit * seconds_in_hour / per_hour).max(1).into());
    Policy { name: "burst", algorithm: Algorithm::TokenBucket, limit, window }
}

/// The policies that all credentials of a tenant share.
pub fn of_tenant(tier: Tier) -> impl Iterator<Item = Policy> {
    let limits = tier.limits();
    let daily = limits.api_calls_per_day.map(|limit| Policy {
        name: DAILY,
        algorithm: Algorithm::FixedWindow,
        limit,
        window: DAY,
    });
    std::iter::once(sliding("hourly", limits.requests_per_hour, HOUR)).chain(daily)
}

const fn sliding(name: &'static str, limit: u32, window: Duration) -> Policy {
    Policy { name, algorithm: Algorithm::SlidingWindow, limit, window }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: Policy) -> String {
        let algorithm: &str = policy.algorithm.into();
        format!("{} {} in {} s ({algorithm})", policy.name, policy.limit, policy.window.as_secs())
    }

    #[test]
    fn the_policies_of_each_tier() {
        let of = |tier| std::iter::once(of_credential(tier)).chain(of_tenant(tier)).map(row).collect::<Vec<_>>();
        let rows: Vec<_> = Tier::all().map(|tier| format!("{}: {}", tier.as_str(), of(tier).join(", "))).collect();
        insta::assert_snapshot!(rows.join("\n"), @r"
        trial: burst 50 in 18 s (token_bucket), hourly 500 in 3600 s (sliding_window), daily 10000 in 86400 s (fixed_window)
        free: burst 50 in 90 s (token_bucket), hourly 100 in 3600 s (sliding_window), daily 10000 in 86400 s (fixed_window)
        starter: burst 50 in 90 s (token_bucket), hourly 100 in 3600 s (sliding_window), daily 10000 in 86400 s (fixed_window)
        professional: burst 50 in 9 s (token_bucket), hourly 1000 in 3600 s (sliding_window), daily 100000 in 86400 s (fixed_window)
        enterprise: burst 56 in 1 s (token_bucket), hourly 10000 in 3600 s (sliding_window)
        custom: burst 556 in 1 s (token_bucket), hourly 100000 in 3600 s (sliding_window)
        ");
        assert_eq!(row(ANONYMOUS), "anonymous 50 in 3600 s (sliding_window)");
    }

    #[test]
    fn an_unknown_tier_has_the_lowest_limits() {
        assert_eq!(Tier::of("platinum"), Tier::Free);
        assert!(Tier::all().all(|tier| Tier::of(tier.as_str()) == tier));
    }
}
