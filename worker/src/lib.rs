//! The worker process: leases jobs from the queue and runs their handlers.
//!
//! The path of a job: [`fetcher`] leases it, [`runtime`] (apalis) starts it, [`runner`] waits for a
//! slot and calls the handler through [`handlers`], [`finisher`] writes the outcome. Meanwhile
//! [`renewer`] keeps its lease alive and [`listener`] receives cancellations.
//!
//! There are two runtimes: handlers run on one, everything else on the other, so a handler that
//! computes or blocks does not cost the process its leases.

pub mod assembly;
pub mod capacity;
mod ends;
mod failure_log;
pub mod fetcher;
pub mod finisher;
pub mod grants;
pub mod handlers;
mod heartbeat;
pub mod held_leases;
pub mod listener;
mod metrics;
pub mod newly_active;
pub mod places;
pub mod process;
pub mod quarantine;
pub mod renewer;
pub mod runner;
pub mod runtime;
mod skew;
pub mod slots;
pub mod sources;
pub mod stall;
pub mod start_cost;
