//! The runtime for tasks that must make progress whatever else the process does: leases,
//! leadership, heartbeat, fetching, finishing and health.
//!
//! Invariant: no tenant-controlled computation runs on this runtime, and a connection is used on
//! the runtime on which it was opened. The task that drives a connection lives on that runtime, so
//! blocking the runtime blocks the connection too.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Enough for tasks that never compute, and few compared with the threads of the other runtime.
const THREADS: usize = 2;

/// Builds the runtime.
pub fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("rota-control").enable_all().build()
}
