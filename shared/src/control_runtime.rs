//! The runtime for tasks that must make progress whatever else the process does: leases,
//! leadership, heartbeat, fetching, finishing and health.
//!
//! Invariant: no tenant-controlled computation runs on this runtime, and a connection is used on
//! the runtime on which it was opened. The task that drives a connection lives on that runtime, so
//! blocking the runtime blocks the connection too.

use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

/// Enough for tasks that never compute.
const MAX_THREADS: usize = 2;

/// Builds the runtime. Half of the processors are left to the other runtime: a second thread beside
/// two that run handlers would take turns with them, and each wake-up of a task costs one of those.
pub fn build() -> io::Result<Runtime> {
    let threads = thread::available_parallelism().map_or(1, |all| (all.get() / 2).clamp(1, MAX_THREADS));
    Builder::new_multi_thread().worker_threads(threads).thread_name("rota-control").enable_all().build()
}
