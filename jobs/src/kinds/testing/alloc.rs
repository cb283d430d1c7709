//! `alloc`: Allocates memory, touches it and holds it for a second.

use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// Allocates memory, touches it and holds it for a second.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alloc {
    /// Amount in MiB.
    mib: usize,
}

impl Job for Alloc {
    const KIND: &'static str = "alloc";
    const DESCRIPTION: &'static str = "Allocates memory, touches it and holds it for a second.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        let mut memory = vec![0_u8; self.mib.saturating_mul(1 << 20)];
        memory.iter_mut().step_by(4_096).for_each(|page| *page = 1);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        std::hint::black_box(&memory);
        Ok(Success::Done)
    }
}
