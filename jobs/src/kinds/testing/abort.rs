//! `abort`: Ends the worker process at once, as a bug in native code does.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Ends the worker process at once, as a bug in native code does.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {}

impl Job for Abort {
    const KIND: &'static str = "abort";
    const DESCRIPTION: &'static str = "Ends the worker process at once, as a bug in native code does.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        std::process::abort()
    }
}
