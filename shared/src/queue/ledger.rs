//! The ledger: SQL that several parts of the queue share. PostgreSQL only.
//!
//! Next: the statements that commit jobs are in [`super::enqueue`], those that read leased jobs in
//! [`super::dispatch`], those that end runs in [`super::complete`].

pub mod expiry;
pub mod follow_up;
pub mod relations;
pub mod retention;
pub mod webhooks;
