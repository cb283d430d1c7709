//! Batches: counted down as their jobs become final, until the completion job may run.
//!
//! Invariant: `pending + completed + discarded + cancelled = total` (the schema checks it), and a
//! finished batch is not counted again.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Final;
use crate::queue::{JobState, ledger::relations::follow_up_flags};

/// Counts these jobs. Returns the completion jobs of batches that are finished now, with the number
/// of dependencies to release: one, the batch.
pub(super) async fn count_down(
    connection: &mut PgConnection,
    ended: &[Final],
) -> Result<BTreeMap<Uuid, i16>, sqlx::Error> {
    let counts = Counts::of(ended.iter().filter_map(|job| Some((job.tenant, member_of(job)?, job.state))));
    if counts.batches.is_empty() {
        return Ok(BTreeMap::new());
    }
    let finished = sqlx::query_scalar!(
        "with counted as (
           select b.tenant_id, b.id, i.completed, i.discarded, i.cancelled
           from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[]) as i (tenant_id, id, completed, discarded, cancelled)
           join batches b on b.tenant_id = i.tenant_id and b.id = i.id
           where b.finished_at is null
           order by b.tenant_id, b.id for no key update of b),
         updated as (
           update batches b set
             pending = b.pending - c.completed - c.discarded - c.cancelled,
             completed = b.completed + c.completed,
             discarded = b.discarded + c.discarded,
             cancelled = b.cancelled + c.cancelled,
             finished_at = case when b.pending = c.completed + c.discarded + c.cancelled then now() end
           from counted c where b.tenant_id = c.tenant_id and b.id = c.id
           returning b.completion_job, b.pending)
         select completion_job from updated where pending = 0",
        &counts.tenants,
        &counts.batches,
        &counts.completed,
        &counts.discarded,
        &counts.cancelled
    )
    .fetch_all(connection)
    .await?;
    Ok(finished.into_iter().map(|job| (job, 1)).collect())
}

/// Counts redriven jobs as pending again, in batches that are not finished. Returns the batches
/// that count them again.
pub(in crate::queue) async fn reopen(
    connection: &mut PgConnection,
    redriven: &[(Uuid, Uuid, JobState)],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let counts = Counts::of(redriven.iter().copied());
    if counts.batches.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!(
        "with counted as (
           select b.tenant_id, b.id, i.discarded, i.cancelled
           from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[]) as i (tenant_id, id, discarded, cancelled)
           join batches b on b.tenant_id = i.tenant_id and b.id = i.id
           where b.finished_at is null
           order by b.tenant_id, b.id for no key update of b)
         update batches b set
           pending = b.pending + c.discarded + c.cancelled,
           discarded = b.discarded - c.discarded,
           cancelled = b.cancelled - c.cancelled
         from counted c where b.tenant_id = c.tenant_id and b.id = c.id
         returning b.id",
        &counts.tenants,
        &counts.batches,
        &counts.discarded,
        &counts.cancelled
    )
    .fetch_all(connection)
    .await
}

fn member_of(job: &Final) -> Option<Uuid> {
    job.batch_id.filter(|_| job.hooks & follow_up_flags::BATCH != 0)
}

/// One row for each batch, as the column arrays for `unnest`.
#[derive(Default)]
struct Counts {
    tenants: Vec<Uuid>,
    batches: Vec<Uuid>,
    completed: Vec<i32>,
    discarded: Vec<i32>,
    cancelled: Vec<i32>,
}

impl Counts {
    fn of(members: impl Iterator<Item = (Uuid, Uuid, JobState)>) -> Self {
        let mut by_batch = BTreeMap::<(Uuid, Uuid), [i32; 3]>::new();
        for (tenant, batch, state) in members {
            let place = match state {
                JobState::Completed => 0,
                JobState::Discarded => 1,
                _ => 2,
            };
            by_batch.entry((tenant, batch)).or_default()[place] += 1;
        }
        let mut counts = Self::default();
        for ((tenant, batch), [completed, discarded, cancelled]) in by_batch {
            counts.tenants.push(tenant);
            counts.batches.push(batch);
            counts.completed.push(completed);
            counts.discarded.push(discarded);
            counts.cancelled.push(cancelled);
        }
        counts
    }
}
