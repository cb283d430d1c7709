//! Runs jobs and completes them.

pub mod completer;
pub mod executor;
mod failure_log;
pub mod handlers;
pub mod runtime;
mod unknown_kind;
