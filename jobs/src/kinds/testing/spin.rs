//! `spin`: Keeps a processor busy and polls the cancellation token.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{QUEUE, stamp::Stamp};
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Keeps a processor busy and polls the cancellation token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spin {
    /// Duration in milliseconds.
    ms: u64,
    /// Whether to block a runtime thread and ignore the token, as a kind with a bug would.
    #[serde(default)]
    blocks: bool,
    /// Where to report the run.
    stamp: Option<Stamp>,
}

impl Job for Spin {
    const KIND: &'static str = "spin";
    const DESCRIPTION: &'static str = "Keeps a processor busy and polls the cancellation token.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let _stamped = self.stamp.as_ref().and_then(|stamp| stamp.start(context));
        let (cancelled, ms) = (context.cancelled().clone(), self.ms);
        if self.blocks {
            spin(ms, || false);
            return Ok(Success::Done);
        }
        // On a separate thread, because a kind that computes must not delay the others in the
        // process.
        tokio::task::spawn_blocking(move || spin(ms, || cancelled.is_cancelled()))
            .await
            .map_err(anyhow::Error::from)?;
        Ok(Success::Done)
    }
}

fn spin(ms: u64, is_over: impl Fn() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_millis(ms);
    while std::time::Instant::now() < until && !is_over() {
        std::hint::spin_loop();
    }
}
