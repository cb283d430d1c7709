//! `abort`: Aborts the worker process, as a bug in native code would.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Aborts the worker process, as a bug in native code would.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {}

impl Job for Abort {
    const KIND: &'static str = "abort";
    const DESCRIPTION: &'static str = "Aborts the worker process, as a bug in native code would.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        std::process::abort()
    }
}
