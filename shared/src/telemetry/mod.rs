//! Observability of a process: log lines and metrics.
//!
//! Invariant: no tenant's data leaves the process here. Log lines carry ids, never payloads,
//! secrets or addresses; metrics never have a tenant label. `logging.rs` initialises the log in the
//! format of `json_lines.rs`, `metrics.rs` installs the metrics, `names.rs` holds every name of
//! both, and `panics.rs` rate-limits panic reports.

mod json_lines;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod panics;
