//! `fail`: Fails a number of times, then succeeds.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Fails a number of times, then succeeds.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// Number of failures.
    times: i16,
}

impl Job for Fail {
    const KIND: &'static str = "fail";
    const DESCRIPTION: &'static str = "Fails a number of times, then succeeds.";
    const QUEUE: &'static str = QUEUE;

    /// Short, so that tests do not have to wait.
    fn retry_delay(_failures: u32) -> std::time::Duration {
        std::time::Duration::from_millis(100)
    }

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        if context.failures() < self.times {
            return Err(anyhow::anyhow!("failure {} of {}, as requested", context.failures() + 1, self.times).into());
        }
        Ok(Success::Done)
    }
}
