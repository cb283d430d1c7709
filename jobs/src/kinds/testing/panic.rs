//! `panic`: Panics, as a kind with a bug would.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Panics, as a kind with a bug would.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Panic {}

impl Job for Panic {
    const KIND: &'static str = "panic";
    const DESCRIPTION: &'static str = "Panics, as a kind with a bug would.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        panic!("the test-only kind `panic` was run")
    }
}
