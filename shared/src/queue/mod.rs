//! The queue: jobs are committed to the ledger (PostgreSQL) and handed out by the index (Redis).
//!
//! Invariant: the ledger decides. The index may be lost, old or wrong at any time; what it hands out is read from the ledger
//! before it runs, and what ran is written to the ledger before the index forgets it.
//!
//! A job's way: [`producer`] commits it, [`Index::push`] makes it known, [`consumer`] leases it and reads its row,
//! [`finish`] writes what became of it, [`aftermath`] what that means for other jobs, [`rescue`] takes it from a holder that died, [`reconcile`] builds the index anew.

pub mod aftermath;
pub mod batches;
pub mod cascade;
pub mod check;
pub mod consumer;
pub mod control;
pub mod effects;
pub mod eviction;
pub mod expiry;
pub mod explain;
pub mod finish;
mod index;
pub mod inspect;
mod job;
pub mod keys;
pub mod limits;
pub mod producer;
pub mod progress;
pub mod reconcile;
pub mod rescue;
pub mod retention;
mod shard;
pub mod shard_agreement;
mod shard_counts;
pub mod ties;
mod wake;
pub mod webhooks;

pub use index::{
    CancelledJob, Grant, HeldLease, Index, IndexSettings, IndexState, JobChange, LeaseToken, MAX_BATCH, Renewed,
    Settlement, StartCost, WORKER_SILENCE, WaitingJob, Welcome,
};
pub use job::{JobState, NewJob, Priority, QueueName};
pub use shard::Shard;
pub use shard_counts::{InvalidShardCounts, MAX_SHARDS, ShardCounts, UnknownQueue};
pub use wake::{Notice, Notices, Subscription};
