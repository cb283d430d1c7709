//! The runtime of what must go on whatever else the process does: leases and leadership, heartbeat, fetching and finishing, health.
//!
//! Invariant: nothing that a tenant decides is computed on it, and connections are used on the runtime on which they were opened. The task that
//! drives a connection lives there, so a connection of a blocked runtime is blocked too.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Enough for what is never computation, and few beside the threads of the other runtime.
const THREADS: usize = 2;

/// Builds it.
pub fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(THREADS).thread_name("rota-control").enable_all().build()
}
