//! Configuration errors, as lines that an operator can act on.
//!
//! Invariant: a line never contains the value of a secret variable. `reader.rs` collects the
//! errors.

use std::fmt;

/// One problem: the variable, the error, and the expected value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The name of the variable.
    pub variable: String,
    /// The error and the expected value, without the value of a secret.
    pub message: String,
}

/// All problems of one configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<Problem>);

impl ConfigErrors {
    /// The problems in the order of the sections.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(out, "{} {noun} in the configuration", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(out, "\n  {}: {}", problem.variable, problem.message))
    }
}

impl std::error::Error for ConfigErrors {}
