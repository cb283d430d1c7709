//! The ledger: SQL that several parts of the queue share. PostgreSQL only.
//!
//! Next: the statements that end runs are in [`super::complete`].

pub mod expiry;
pub mod follow_up;
pub(in crate::queue) mod insert;
pub(in crate::queue) mod insert_related;
pub mod relations;
pub mod request;
pub mod retention;
pub(in crate::queue) mod rows;
pub mod webhooks;

/// Jobs that one transaction inserts or changes when there are many: a row stays locked for a few
/// milliseconds only.
pub const JOBS_PER_TRANSACTION: i64 = 500;
