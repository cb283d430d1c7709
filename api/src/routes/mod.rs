//! The routes, one file per resource.
//!
//! Invariant: a file here states paths, arguments and answers, and leaves the work to what it calls.

pub mod health;
pub mod metrics;
