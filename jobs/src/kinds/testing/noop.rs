//! `noop`: Does nothing, as fast as possible.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{QUEUE, stamp::Stamp};
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Does nothing, as fast as possible.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noop {
    /// Ignored; makes the job as large as a real one.
    #[serde(default)]
    #[expect(dead_code, reason = "only its size matters")]
    pad: String,
    /// Where to report the run.
    stamp: Option<Stamp>,
}

impl Job for Noop {
    const KIND: &'static str = "noop";
    const DESCRIPTION: &'static str = "Does nothing, as fast as possible.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let _stamped = self.stamp.as_ref().and_then(|stamp| stamp.start(context));
        Ok(Success::Done)
    }
}
