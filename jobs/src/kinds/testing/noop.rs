//! `noop`: Does nothing, as fast as possible.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Does nothing, as fast as possible.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noop {
    /// Ignored: it makes the job as large as a real one.
    #[serde(default)]
    #[expect(dead_code, reason = "only its size matters")]
    pad: String,
}

impl Job for Noop {
    const KIND: &'static str = "noop";
    const DESCRIPTION: &'static str = "Does nothing, as fast as possible.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        Ok(Success::Done)
    }
}
