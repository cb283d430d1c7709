//! What a process tells about itself: log lines and metrics.
//!
//! Invariant: no tenant's data leaves here. Log lines carry ids, never payloads, secrets or addresses; metrics never
//! have a tenant as label. `logging.rs` starts the log, `json_lines.rs` is its form for machines, `metrics.rs` starts
//! the metrics, and every name of both is in `names.rs`; `panics.rs` bounds the reports of panics.

mod json_lines;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod panics;
