//! Reads jobs for people and clients: nothing here changes a job.

pub mod batches;
pub mod explain;
pub mod inspect;
pub mod progress;
