//! `/api/v1/jobs` and what belongs to a job: submission, relations, control, lists and streams.

mod args;
mod batch;
mod bulk;
mod cancel_and_retry;
mod completion_batches;
mod dependencies;
mod dependency_limits;
mod events;
mod expiry;
mod explain;
mod internal;
mod list;
mod progress;
mod submission;
mod unique_keys;
