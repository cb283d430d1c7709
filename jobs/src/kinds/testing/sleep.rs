//! `sleep`: Waits without using a processor; optionally reports progress and returns a result.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use shared::plain_json;

use super::{QUEUE, stamp::Stamp};
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Waits without using a processor.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// Duration in milliseconds.
    ms: u64,
    /// Where to report the run.
    stamp: Option<Stamp>,
    /// Number of equal parts; progress is reported after each.
    #[schemars(range(min = 1, max = 100))]
    steps: Option<u8>,
    /// Size of the result, in bytes of JSON.
    #[schemars(range(min = 2, max = 1_000_000))]
    result_bytes: Option<usize>,
}

impl Job for Sleep {
    const KIND: &'static str = "sleep";
    const DESCRIPTION: &'static str = "Waits without using a processor.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let _stamped = self.stamp.as_ref().and_then(|stamp| stamp.start(context));
        let steps = self.steps.unwrap_or(1).max(1);
        for step in 1..=steps {
            tokio::time::sleep(Duration::from_millis(self.ms) / u32::from(steps)).await;
            if self.steps.is_some() {
                let percent = u16::from(step) * 100 / u16::from(steps);
                let message = format!("step {step} of {steps}");
                context.progress(u8::try_from(percent).unwrap_or(100), Some(&message)).await;
            }
        }
        let Some(bytes) = self.result_bytes else { return Ok(Success::Done) };
        let text = "x".repeat(bytes.saturating_sub(2));
        Ok(Success::DoneWith(plain_json::raw(&text)))
    }
}
