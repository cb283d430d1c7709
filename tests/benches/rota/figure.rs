//! Measured numbers, and their summary over several runs.

use std::time::Duration;

use serde::Serialize;

/// The target of a number.
#[derive(Clone, Copy, Debug)]
pub enum Bar {
    /// Higher is better.
    AtLeast(f64),
    /// Lower is better.
    AtMost(f64),
}

/// One number of one run.
#[derive(Clone, Debug)]
pub struct Measured {
    name: String,
    value: f64,
    unit: &'static str,
    bar: Option<Bar>,
}

/// The same number over all runs.
#[derive(Debug, Serialize)]
pub struct Series {
    name: String,
    /// The median.
    value: f64,
    unit: &'static str,
    runs: Vec<f64>,
    median: f64,
    bar: Option<String>,
    ok: Option<bool>,
}

impl Measured {
    /// A number without a target.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, bar: None }
    }

    /// Jobs per second.
    pub fn rate(name: impl Into<String>, jobs: usize, took: Duration) -> Self {
        Self::new(name, count(jobs) / took.as_secs_f64(), "jobs/s")
    }

    /// The percentile `share` (0 to 100) of samples in milliseconds; sorts the samples.
    pub fn percentile(name: impl Into<String>, samples_ms: &mut [f64], share: usize) -> Self {
        samples_ms.sort_unstable_by(f64::total_cmp);
        let at = (samples_ms.len() * share / 100).min(samples_ms.len().saturating_sub(1));
        Self::new(name, samples_ms.get(at).copied().unwrap_or(f64::NAN), "ms")
    }

    /// Sets the minimum.
    pub fn at_least(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(bar)), ..self }
    }

    /// Sets the maximum.
    pub fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtMost(bar)), ..self }
    }

    /// The number.
    pub const fn value(&self) -> f64 {
        self.value
    }
}

impl Series {
    /// Combines the runs of one figure, number by number.
    pub fn of(runs: &[Vec<Measured>]) -> Vec<Self> {
        let Some(first) = runs.first() else { return Vec::new() };
        let series = |measured: &Measured| {
            let same = |run: &Vec<Measured>| run.iter().find(|other| other.name == measured.name).map(Measured::value);
            let values: Vec<f64> = runs.iter().filter_map(same).collect();
            Self::new(measured, values)
        };
        first.iter().map(series).collect()
    }

    fn new(measured: &Measured, runs: Vec<f64>) -> Self {
        let median = median(&runs);
        let (bar, ok) = match measured.bar {
            Some(Bar::AtLeast(bar)) => (Some(format!(">= {bar}")), Some(median >= bar)),
            Some(Bar::AtMost(bar)) => (Some(format!("<= {bar}")), Some(median <= bar)),
            None => (None, None),
        };
        Self { name: measured.name.clone(), value: median, unit: measured.unit, runs, median, bar, ok }
    }

    /// The human-readable line.
    pub fn line(&self) -> String {
        let verdict = match (&self.bar, self.ok) {
            (Some(bar), Some(true)) => format!("   {bar}: met"),
            (Some(bar), _) => format!("   {bar}: MISSED"),
            (None, _) => String::new(),
        };
        let spread = match (self.runs.iter().copied().reduce(f64::min), self.runs.iter().copied().reduce(f64::max)) {
            (Some(least), Some(most)) if self.runs.len() > 1 => format!(" ({least:.2} to {most:.2})"),
            _ => String::new(),
        };
        format!("{:58} {:>12.2} {}{spread}{verdict}", self.name, self.median, self.unit)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// A count as the `f64` that figures are computed with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub const fn count(number: usize) -> f64 {
    number as f64
}
