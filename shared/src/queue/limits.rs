//! Limits set by operators: a tenant's weight, how many of its jobs run at once, how many start per
//! second, and pauses.
//!
//! Invariant: the ledger decides; the index holds a copy that the scripts read. A change is
//! committed first and then pushed, and the leading scheduler repairs a copy that missed it. See
//! `docs/decisions/0006`.
//!
//! Next: [`ledger`] for the rows, [`Limiter`] for updating the index.

pub mod ledger;
mod limiter;

use std::{fmt, str::FromStr};

use serde::Serialize;

pub use self::limiter::{LimitError, Limiter, QueueOverview};
use crate::queue::{QueueName, job::InvalidQueueName};

/// The range of a weight.
pub const WEIGHTS: std::ops::RangeInclusive<i32> = 1..=1_000;
/// The range of a cap and of a burst.
pub const COUNTS: std::ops::RangeInclusive<i32> = 1..=1_000_000;
/// The range of a rate, in starts per second.
pub const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// The weight of a tier: a tenant's share of worker time relative to other tenants that have work.
pub fn tier_weight(tier: &str) -> i32 {
    match tier {
        "starter" => 2,
        "professional" => 4,
        "enterprise" | "custom" => 8,
        _ => 1,
    }
}

/// Limit on the starts of jobs (a token bucket).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Average number of starts per second.
    pub per_second: f64,
    /// Starts allowed at once after a time without any.
    pub burst: i32,
}

/// The limits in effect for one tenant in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Share relative to other tenants.
    pub weight: i32,
    /// How many of its jobs may run at once.
    pub max_running: Option<i32>,
    /// How many of its jobs may start per second.
    pub rate: Option<Rate>,
    /// Whether no job may start.
    pub paused: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { weight: 1, max_running: None, rate: None, paused: false }
    }
}

impl Limits {
    /// The form that the scripts read: weight, cap, rate, burst, paused; empty for the default.
    pub(in crate::queue) fn pack(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let (rate, burst) = self.rate.map_or((0.0, 0), |rate| (rate.per_second, rate.burst));
        format!("{} {} {rate} {burst} {}", self.weight, self.max_running.unwrap_or(0), i32::from(self.paused))
    }

    /// Reads the output of [`Self::pack`]; any other text gives the default.
    pub(in crate::queue) fn unpack(text: &str) -> Self {
        Self::parse(text).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let weight = fields.next()?.parse().ok()?;
        let max_running = fields.next()?.parse().ok().filter(|&cap| cap > 0);
        let (per_second, burst): (f64, i32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let rate = (per_second > 0.0).then_some(Rate { per_second, burst });
        Some(Self { weight, max_running, rate, paused: fields.next()? == "1" })
    }
}

/// One queue, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueScope {
    /// Every queue, unless its own row sets another value.
    All,
    /// This queue.
    One(QueueName),
}

impl FromStr for QueueScope {
    type Err = InvalidQueueName;

    fn from_str(text: &str) -> Result<Self, InvalidQueueName> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

impl fmt::Display for QueueScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::One(queue) => queue.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Rate};

    #[test]
    fn the_default_limits_pack_to_an_empty_text() {
        assert_eq!(Limits::default().pack(), "");
        assert_eq!(Limits::unpack(""), Limits::default());
    }

    #[test]
    fn packed_limits_round_trip() {
        let rates = [None, Some(Rate { per_second: 0.5, burst: 1 }), Some(Rate { per_second: 1e6, burst: 1_000_000 })];
        for rate in rates {
            for paused in [false, true] {
                for (weight, max_running) in [(1, Some(3)), (1_000, None), (2, Some(1_000_000))] {
                    let limits = Limits { weight, max_running, rate, paused };
                    assert_eq!(Limits::unpack(&limits.pack()), limits, "{:?}", limits.pack());
                }
            }
        }
    }
}
