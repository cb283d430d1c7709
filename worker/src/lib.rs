//! The worker process: leases jobs from the queue and runs their handlers.
//!
//! ```text
//!   fetch: poll, notification or direct dispatch ─▶ intake ─▶ run: slot, handler, completer
//!            ▲ permits                                │                     │
//!   capacity: budget, slots                lease: held until the outcome is settled
//! ```
//!
//! There are two runtimes: handlers run on one, everything else on the other, so a handler that
//! computes or blocks does not cost the process its leases.
//!
//! - [`setup`] reads the configuration and opens the stores; [`worker`] starts and stops the parts.
//! - [`fetch`] leases jobs for free permits; every leased job passes `fetch/intake.rs`.
//! - [`capacity`] bounds how many jobs are held and run, and measures what a start costs.
//! - [`run`] runs the handlers and completes the jobs.
//! - [`lease`] renews leases until they are settled.

pub mod capacity;
pub mod fetch;
mod heartbeat;
pub mod lease;
mod metrics;
pub mod process;
pub mod run;
pub mod setup;
pub mod worker;
