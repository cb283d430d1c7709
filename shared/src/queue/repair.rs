//! What the leading scheduler does so that the index follows the ledger, and no job stays with a
//! dead worker.
//!
//! Invariant: every step may be repeated, and may be done by two leaders at once.

pub mod check;
pub mod expiry;
pub mod reconcile;
pub mod rescue;
pub mod shard_agreement;
