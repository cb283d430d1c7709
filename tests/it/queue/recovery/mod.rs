//! Recovery of jobs, index and processes: rescue, sweep, repair, the change of the leader, and
//! orderly stops.

mod crash;
mod drain;
mod index_invariant;
mod leadership;
mod poison;
mod rolling_restart;
mod schedulers;
mod sweep;
