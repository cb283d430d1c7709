//! The worker process: leases jobs from the queue and runs their kinds.
