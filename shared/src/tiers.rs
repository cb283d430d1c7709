//! What a company may do by its tier: one table of limits, and one of features.
//!
//! Invariant: every tier that the ledger accepts has a line in [`Tier::limits`], and a limit that is
//! `None` does not exist. `shared/src/tiers/tiers.txt` is the table as text, and a test compares the
//! two. The weight of a tier in a queue is in [`crate::queue::limits`].

use std::str::FromStr as _;

/// A tier, in ascending order of the features that it has.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Tier {
    /// Of companies that registered themselves.
    Trial,
    Free,
    Starter,
    Professional,
    Enterprise,
    /// By agreement; has every feature.
    Custom,
}

/// The limits of a tier; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierLimits {
    /// Requests in an hour.
    pub requests_per_hour: u32,
    /// Calls of the API in a day.
    pub api_calls_per_day: Option<u32>,
    /// Users.
    pub users: Option<u32>,
    /// Properties.
    pub properties: Option<u32>,
}

/// What only some tiers have. Names are used by clients, so they are never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Feature {
    ApiAccess,
    AdvancedAnalytics,
    CustomBranding,
    BulkOperations,
    Automation,
    Sso,
    AdvancedReporting,
    WhiteLabel,
}

impl Tier {
    /// All tiers, in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The tier with this name; `None` if a later release knows it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::from_str(name).ok()
    }

    /// The tier with this name. A tier of a later release has the limits of the lowest one here.
    pub fn of(name: &str) -> Self {
        Self::parse(name).unwrap_or(Self::Free)
    }

    /// The name of the tier.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The limits of the tier.
    #[rustfmt::skip]
    pub fn limits(self) -> TierLimits {
        const UNLIMITED: Option<u32> = None;
        let (requests_per_hour, api_calls_per_day, users, properties) = match self {
            //                               requests an hour  calls a day     users      properties
            Self::Trial                  => (500,              Some(10_000),   Some(1),   Some(50)),
            Self::Free | Self::Starter   => (100,              Some(10_000),   Some(1),   Some(50)),
            Self::Professional           => (1_000,            Some(100_000),  Some(5),   Some(500)),
            Self::Enterprise             => (10_000,           UNLIMITED,      UNLIMITED, UNLIMITED),
            Self::Custom                 => (100_000,          UNLIMITED,      UNLIMITED, UNLIMITED),
        };
        TierLimits { requests_per_hour, api_calls_per_day, users, properties }
    }
}

impl Feature {
    /// All features.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The name of the feature.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The lowest tier that has the feature.
    pub const fn lowest_tier(self) -> Tier {
        match self {
            Self::ApiAccess | Self::AdvancedAnalytics | Self::CustomBranding | Self::BulkOperations => {
                Tier::Professional
            }
            Self::Automation | Self::Sso | Self::AdvancedReporting | Self::WhiteLabel => Tier::Enterprise,
        }
    }

    /// Whether companies of a tier have the feature.
    pub fn is_in(self, tier: Tier) -> bool {
        tier >= self.lowest_tier()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(limit: Option<u32>) -> String {
        limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
    }

    #[test]
    fn the_table_is_the_one_that_was_agreed() {
        let mut lines = vec![format!(
            "{:<13}{:>17}{:>17}{:>10}{:>11}  features",
            "tier", "requests/hour", "api calls/day", "users", "properties"
        )];
        for tier in Tier::all() {
            let limits = tier.limits();
            let features: Vec<_> = Feature::all().filter(|one| one.is_in(tier)).map(Feature::as_str).collect();
            let line = format!(
                "{:<13}{:>17}{:>17}{:>10}{:>11}  {}",
                tier.to_string(),
                limits.requests_per_hour,
                number(limits.api_calls_per_day),
                number(limits.users),
                number(limits.properties),
                features.join(" ")
            );
            lines.push(line.trim_end().to_owned());
        }
        assert_eq!(lines.join("\n") + "\n", include_str!("tiers/tiers.txt"));
    }

    #[test]
    fn names_round_trip() {
        for tier in Tier::all() {
            assert_eq!(Tier::parse(&tier.to_string()), Some(tier));
        }
        assert_eq!(Tier::parse("platinum"), None);
    }
}
