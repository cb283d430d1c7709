//! Limits on the number of job dependencies (`after`).
//!
//! Invariant: both limits count edges, one for each job that another job names in `after`.

use super::reader::{Reader, Variable};

const PER_REQUEST: Variable = Variable::new("ROTA_MAX_DEPENDENCIES_PER_REQUEST", "a whole number from 1 to 100000");
const OPEN: Variable = Variable::new("ROTA_MAX_OPEN_DEPENDENCIES", "a whole number from 1 to 10000000");

/// The dependencies section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyConfig {
    /// `ROTA_MAX_DEPENDENCIES_PER_REQUEST`, 1 to 100,000; default 10,000. For all jobs of one
    /// request.
    pub per_request: usize,
    /// `ROTA_MAX_OPEN_DEPENDENCIES`, 1 to 10,000,000; default 100,000. For all waiting jobs of one
    /// tenant.
    pub open: usize,
}

impl Default for DependencyConfig {
    fn default() -> Self {
        Self { per_request: 10_000, open: 100_000 }
    }
}

impl DependencyConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            per_request: reader.or(PER_REQUEST, default.per_request, |text| number(text, 100_000)),
            open: reader.or(OPEN, default.open, |text| number(text, 10_000_000)),
        }
    }
}

fn number(text: &str, most: usize) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=most).contains(number))
}
