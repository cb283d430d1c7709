//! The scheduler process: one leader of N promotes, rescues, sweeps, reconciles and cleans up.
//!
//! [`elector`] elects the leader, [`maintainer`] runs the [`services`] while this process leads.

pub mod assembly;
pub mod elector;
pub mod maintainer;
pub mod process;
mod rest;
pub mod services;
