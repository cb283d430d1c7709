//! The queue: jobs are committed to the ledger (PostgreSQL) and handed out by the index (Redis).
//!
//! ```text
//!   enqueue ──────▶ dispatch ──────▶ (a worker runs the job) ──────▶ complete
//!      │               ▲  │                                             │
//!      │ commit        │  │ read rows                     record the end │
//!      ▼               │  ▼                                             ▼
//!   ┌──────────────────┼─────────────── ledger ────────────────────────────┐
//!   └──────────────────┼────────────────────────────────────────────────────┘
//!      │ push          │ lease                                           │ settle
//!      ▼               │                                                 ▼
//!   ┌───────────────────────────────── index ──────────────────────────────┐
//!   └───────────────────────────────────────────────────────────────────────┘
//!                      ▲
//!   repair ────────────┘ rebuild, sweep, rescue, check        control, observe, limits beside them
//! ```
//!
//! Invariant: the ledger decides. The index is a rebuildable cache that may be lost, stale or wrong
//! at any time. What it proposes is read from the ledger before it runs, and the end of a run is
//! written to the ledger before the index forgets the lease.
//!
//! - [`enqueue`] commits jobs, many requests in one transaction, and pushes them to the index.
//! - [`dispatch`] leases job ids from the index and reads their rows from the ledger.
//! - [`complete`] records the end of a run, with its follow-up for other jobs, and settles the lease.
//! - [`repair`] rebuilds the index, finds what it lacks, and takes jobs from dead workers.
//! - [`control`] cancels and redrives jobs; [`observe`] reads them; [`limits`] are those of tenants.
//! - [`announcement`] publishes committed changes to the index.
//! - [`ledger`] is the SQL that these use; [`index`] the scripts and their keys.

pub mod announcement;
pub mod complete;
pub mod control;
pub mod dispatch;
pub mod enqueue;
pub mod index;
mod job;
mod lease;
pub mod ledger;
pub mod limits;
pub mod observe;
pub mod repair;
mod shard;
mod shard_counts;
mod store_error;
mod waiting_job;

pub use index::{
    Index, IndexSettings, MAX_BATCH, StartCost, WORKER_SILENCE,
    announce::JobChange,
    dispatch::{DirectDispatch, FetchScope, Proposed},
    leases::Renewed,
    notifications::{Notice, Notices, Subscription},
    status::IndexState,
};
pub use job::{JobState, NewJob, Priority, QueueName};
pub use lease::{Lease, LeaseToken, Settlement};
pub use shard::Shard;
pub use shard_counts::{InvalidShardCounts, MAX_SHARDS, ShardCounts, UnknownQueue};
pub use store_error::StoreError;
pub use waiting_job::{CancelledJob, WaitingJob};
