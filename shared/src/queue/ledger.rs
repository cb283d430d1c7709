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
