//! `spin`: Uses a processor, and looks at the cancellation token now and then.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{QUEUE, stamp::Stamp};
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Uses a processor, and looks at the cancellation token now and then.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spin {
    /// How long, in milliseconds.
    ms: u64,
    /// Whether it keeps a thread of the runtime, as a kind with a bug does, and does not look at the token.
    #[serde(default)]
    blocks: bool,
    /// Tells a measuring program of the run.
    stamp: Option<Stamp>,
}

impl Job for Spin {
    const KIND: &'static str = "spin";
    const DESCRIPTION: &'static str = "Uses a processor, and looks at the cancellation token now and then.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let _stamped = self.stamp.as_ref().and_then(|stamp| stamp.start(context));
        let (cancelled, ms) = (context.cancelled().clone(), self.ms);
        if self.blocks {
            spin(ms, || false);
            return Ok(Success::Done);
        }
        // On a thread of its own: a kind that computes must not hold up the others of the process.
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
