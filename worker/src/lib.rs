//! The worker process: leases jobs from the queue and runs their kinds.
//!
//! A job's way through it: [`fetcher`] leases it, [`runtime`] (apalis) starts its run, [`runner`] waits for a slot and has [`handlers`] run its
//! kind, [`finisher`] writes how it ended. [`renewer`] keeps the leases alive meanwhile, [`listener`] hears of cancellations.
//!
//! Two runtimes: runs are tasks on one, everything else is on the other, so that a handler that computes or blocks costs no lease.

pub mod assembly;
pub mod capacity;
mod ends;
mod failure_log;
pub mod fetcher;
pub mod finisher;
pub mod grants;
pub mod handlers;
mod heartbeat;
pub mod holdings;
pub mod last_chance;
pub mod listener;
mod metrics;
pub mod newcomers;
pub mod places;
pub mod process;
pub mod renewer;
pub mod runner;
pub mod runtime;
mod skew;
pub mod slots;
pub mod sources;
pub mod stall;
pub mod start_cost;
