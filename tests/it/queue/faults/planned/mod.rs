//! Real processes that are killed, hung or given an error exactly between two steps (see
//! `shared::faults`).
//!
//! Each test names the point, and checks what holds after it by effects that are visible from
//! outside.

mod api;
mod cascade;
mod rebuild;
mod rescue;
mod resharding;
mod worker;

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use anyhow::Result;
use tests::process::ProcessUnderTest;

use crate::queue::support::PATIENCE;

const LEASE: Duration = Duration::from_secs(2);

/// Waits until the planned kill has happened.
async fn is_killed(process: &mut ProcessUnderTest) -> Result<()> {
    let status = process.wait_exit(PATIENCE).await?;
    assert_eq!(status.signal(), Some(9), "{status}: {}", process.output()?);
    Ok(())
}
