//! Timing of the queue: leases, ticks, reconciliation.
//!
//! Invariant: all processes of an installation must be given the same values. A lease is never
//! shorter than two seconds, below which an ordinary pause of a machine looks like a crash.

use std::time::Duration;

use super::reader::{Reader, Variable};

const LEASE: Variable = Variable::new("ROTA_LEASE_MS", "whole milliseconds from 2000");
const RECONCILE: Variable = Variable::new("ROTA_RECONCILE_MS", "whole milliseconds from 50");
const TICK: Variable = Variable::new("ROTA_TICK_MS", "whole milliseconds from 10");

/// The timing section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingConfig {
    /// `ROTA_LEASE_MS`, from 2000; default 30000. How long a worker keeps its jobs without renewing
    /// their leases.
    pub lease: Duration,
    /// `ROTA_RECONCILE_MS`, from 50; default 1000. Interval of the sweep and of the checks for a lost
    /// index.
    pub reconcile: Duration,
    /// `ROTA_TICK_MS`, from 10; default 500. Interval of the promotion of due jobs and of the
    /// rescue of expired leases.
    pub tick: Duration,
}

impl TimingConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            lease: reader.or(LEASE, Duration::from_secs(30), |text| parse_millis(text, 2_000)),
            reconcile: reader.or(RECONCILE, Duration::from_secs(1), |text| parse_millis(text, 50)),
            tick: reader.or(TICK, Duration::from_millis(500), |text| parse_millis(text, 10)),
        }
    }
}

/// Whole milliseconds from `min` to one day; larger values are mistakes in the unit.
pub(super) fn parse_millis(text: &str, min: u64) -> Option<Duration> {
    const DAY_MS: u64 = 86_400_000;
    text.parse().ok().filter(|millis| (min..=DAY_MS).contains(millis)).map(Duration::from_millis)
}
