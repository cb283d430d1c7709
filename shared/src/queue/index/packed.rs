//! Records of equal size for pushes and settlements: one argument for many jobs, because Redis
//! creates an object for each argument and Lua a string.

use super::PRIORITY_SPAN;
use crate::queue::{
    job::Priority,
    lease::{LeaseToken, LeasedRef, Settlement},
    waiting_job::WaitingJob,
};

/// Size of a record in bytes; equal for pushes and settlements.
const SIZE: usize = 41;
/// Special run times in a settlement, as in `settle.lua`.
const UNRUN: f64 = -1.0;
const RESCUED: f64 = -2.0;

/// A waiting job as `push.lua` unpacks it.
pub(super) fn waiting_job(job: &WaitingJob) -> [u8; SIZE] {
    let run_at = job.run_at_ms.map_or(f64::NEG_INFINITY, double);
    let tenant = job.tenant.as_uuid().as_bytes();
    packed([job.id.as_bytes(), tenant, &[packed_priority(job.priority)], &run_at.to_le_bytes()])
}

/// A settlement as `settle.lua` unpacks it.
pub(super) fn settlement(Settlement { id, token, ran, again, rescued }: &Settlement) -> [u8; SIZE] {
    let ran_ms = if *rescued { RESCUED } else { ran.map_or(UNRUN, |ran| ran.as_secs_f64() * 1_000.0) };
    let (run_at, priority) = again.map_or((0.0, 0), |(ms, priority)| (double(ms), packed_priority(priority)));
    packed([id.as_bytes(), token.bytes(), &ran_ms.to_le_bytes(), &[priority], &run_at.to_le_bytes()])
}

/// Parses a leased id and its score in the flow.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a score is priority * 2^43 + ms, exact in a double by construction"
)]
pub(super) fn leased_ref(id: &[u8], token: LeaseToken, flow_score: &str) -> Option<LeasedRef> {
    let score = flow_score.parse::<f64>().ok()? as i64;
    // The job is already leased, so an invalid score must not drop it.
    let priority = Priority::from_ledger((score / PRIORITY_SPAN) as i16);
    let id = uuid::Uuid::from_slice(id).ok()?;
    Some(LeasedRef { id, token, priority, run_at_ms: score % PRIORITY_SPAN })
}

/// Concatenates the fields of a record.
fn packed<const FIELDS: usize>(fields: [&[u8]; FIELDS]) -> [u8; SIZE] {
    let (mut record, mut end) = ([0; SIZE], 0);
    for field in fields {
        let begin = end;
        end += field.len();
        record[begin..end].copy_from_slice(field);
    }
    debug_assert_eq!(end, SIZE, "the length must match the formats of `push.lua` and `settle.lua`");
    record
}

fn packed_priority(priority: Priority) -> u8 {
    u8::try_from(priority.get()).expect("a priority is 1 to 4")
}

#[expect(clippy::cast_precision_loss, reason = "a time in ms is far below 2^53, and a later one is in no flow")]
const fn double(ms: i64) -> f64 {
    ms as f64
}
