//! What bounds the jobs of a worker: permits to hold a job, slots to run it; and what a start costs.

pub mod budget;
pub mod handler_runtime;
pub mod slots;
pub mod start_cost;
