//! The queue: jobs are committed to the ledger (PostgreSQL) and dispatched by the index (Redis).
//!
//! Invariant: the ledger decides. The index may be lost, stale or wrong at any time; a job that it
//! proposes is read from the ledger before it runs, and the result of a run is written to the
//! ledger before its lease ends in the index.
//!
//! The life of a job: [`producer`] commits it, [`Index::push`] adds it to the index, [`consumer`]
//! leases it and reads its row, [`finish`] records the outcome, [`aftermath`] does the follow-up
//! work for related jobs. [`rescue`] recovers jobs of holders that died, [`reconcile`] rebuilds the
//! index.

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
