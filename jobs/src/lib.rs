//! What work exists: the job trait, the registry and one file for each kind.
//!
//! A newcomer who adds a kind reads [`job`], copies a file in [`kinds`], and adds a line to the list there.

#![warn(missing_docs)]

pub mod backoff;
pub mod context;
pub mod environment;
pub mod job;
pub mod kinds;
pub mod registry;
