//! Faults of processes, stores and links: nothing is lost, and no finished job runs again.

mod broken_queue;
mod clocks;
mod late_messages;
mod latency;
mod locked_rows;
mod loss_of_postgres;
mod loss_of_redis;
mod planned;
mod silent_connections;
mod system_calls;
