//! The queue engine. There is a folder for each step of a job's life (`enqueue`, `dispatch`,
//! `complete`), for the properties of the whole (`fairness`, `control`, `recovery`, `maintenance`,
//! `shards`), for losses and delays (`faults`), and for random histories (`model`).

mod complete;
mod control;
mod dispatch;
mod enqueue;
mod fairness;
mod faults;
mod maintenance;
mod model;
mod recovery;
mod shards;
pub mod support;
