//! `sleep`: Waits without using a processor.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{QUEUE, stamp::Stamp};
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
    /// Tells a measuring program of the run.
    stamp: Option<Stamp>,
}

impl Job for Sleep {
    const KIND: &'static str = "sleep";
    const DESCRIPTION: &'static str = "Waits without using a processor.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let _stamped = self.stamp.as_ref().and_then(|stamp| stamp.start(context));
        tokio::time::sleep(std::time::Duration::from_millis(self.ms)).await;
        Ok(Success::Done)
    }
}
