//! The worker process: leases jobs from the queue and runs their kinds.
//!
//! A job's way through it: [`fetcher`] leases it, [`runtime`] (apalis) gives it a slot, [`runner`] runs its kind, [`finisher`]
//! writes how it ended. [`renewer`] keeps the leases alive meanwhile, [`listener`] hears of cancellations.

pub mod assembly;
pub mod canceller;
pub mod capacity;
pub mod fetcher;
pub mod finisher;
pub mod grants;
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
