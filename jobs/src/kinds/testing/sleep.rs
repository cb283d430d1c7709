//! `sleep`: Waits without using a processor.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Waits without using a processor.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// How long, in milliseconds.
    ms: u64,
}

impl Job for Sleep {
    const KIND: &'static str = "sleep";
    const DESCRIPTION: &'static str = "Waits without using a processor.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        tokio::time::sleep(std::time::Duration::from_millis(self.ms)).await;
        Ok(Success::Done)
    }
}
