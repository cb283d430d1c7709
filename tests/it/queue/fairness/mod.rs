//! Start-time fair queueing: shares of worker time by weight, and what a run is charged.

mod simulation;
mod start_cost;
mod virtual_time;
mod worker_time;
