//! Jobs that depend on others: which rows the end of a job can touch, and what happens to them.
//!
//! Invariant: `waits_for` counts the remaining rows of `job_dependencies` (plus the batch, for its
//! completion job). A row exists as long as the dependency is not final, or is recorded in
//! `job_cascades`: a transaction touches a bounded number of jobs.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Final, FollowUp, final_of, waiting};
use crate::{
    queue::{
        JobState, Priority,
        ledger::{follow_up::Position, relations::follow_up_flags},
    },
    tenancy::TenantId,
};

/// Jobs that one transaction releases or cancels, in addition to the jobs whose end it writes. The
/// rest is left to [`crate::queue::control::cascade`].
pub(in crate::queue) const STEP: i64 = 200;

/// The jobs that a transaction may change.
#[derive(Debug, Default)]
pub(in crate::queue) struct Locked(Vec<Uuid>);

impl Locked {
    /// Jobs that the transaction inserts itself.
    pub(in crate::queue) fn own(jobs: impl Iterator<Item = Uuid>) -> Self {
        Self(jobs.collect())
    }
}

/// Locks, in the order of their ids, the jobs that are about to end, the nearest of their
/// dependents, and the completion jobs of their batches. `fails` marks the jobs that will not
/// complete: a cascade of cancellations may start there.
pub(in crate::queue) async fn lock(
    connection: &mut PgConnection,
    ids: &[Uuid],
    fails: &[bool],
) -> Result<Locked, sqlx::Error> {
    let limit = i64::try_from(ids.len()).unwrap_or(i64::MAX).saturating_add(STEP);
    // `offset 0` keeps the planner from joining in another order: without statistics it would read
    // all of the tenant's jobs for each step of the recursion.
    let locked = sqlx::query_scalar!(
        r#"with recursive reach (tenant_id, id, batch_id, fails, ends) as (
             select j.tenant_id, j.id, case when j.hooks & 2 <> 0 then j.batch_id end, i.fails, true
             from unnest($1::uuid[], $2::bool[]) as i (id, fails)
             cross join lateral (select tenant_id, id, hooks, batch_id from jobs where id = i.id offset 0) j
             union
             select d.tenant_id, d.job_id, case when j.hooks & 2 <> 0 then j.batch_id end,
                    r.fails and not d.run_on_failure, r.fails and not d.run_on_failure
             from reach r
             join job_dependencies d on d.tenant_id = r.tenant_id and d.depends_on = r.id
             cross join lateral (select hooks, batch_id from jobs where id = d.job_id offset 0) j
             where r.ends),
           -- Breadth first, and evaluated no further than the limit.
           near as materialized (select * from reach limit $3)
           select id from jobs
           where id = any(array(select id from near
                                union
                                select b.completion_job from near r join batches b on b.tenant_id = r.tenant_id and b.id = r.batch_id
                                where r.ends))
           order by id for no key update"#,
        ids,
        fails,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(Locked(locked))
}

/// Removes the ended jobs from the dependencies of others. Returns all jobs that ended, including
/// those cancelled because a dependency failed. Touches locked jobs only.
pub(super) async fn settle(
    connection: &mut PgConnection,
    ended: Vec<Final>,
    locked: &Locked,
    follow_up: &mut FollowUp,
) -> Result<Vec<Final>, sqlx::Error> {
    let (mut all, mut front) = (Vec::with_capacity(ended.len()), ended);
    while !front.is_empty() {
        forget_own(connection, &front).await?;
        let next = advance(connection, &front, locked, follow_up).await?;
        all.append(&mut front);
        front = next;
    }
    Ok(all)
}

/// Deletes the dependencies of jobs that ended while they waited.
async fn forget_own(connection: &mut PgConnection, ended: &[Final]) -> Result<(), sqlx::Error> {
    let (tenants, ids): (Vec<Uuid>, Vec<Uuid>) =
        ended.iter().filter(|job| job.waits_for > 0).map(|job| (job.tenant, job.id)).unzip();
    if !ids.is_empty() {
        sqlx::query!(
            "delete from job_dependencies d using unnest($1::uuid[], $2::uuid[]) as i (tenant_id, job_id)
             where d.tenant_id = i.tenant_id and d.job_id = i.job_id",
            &tenants,
            &ids
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// One step of the cascade: returns the jobs that it cancelled. Remaining dependents are recorded
/// in `job_cascades`.
async fn advance(
    connection: &mut PgConnection,
    ended: &[Final],
    locked: &Locked,
    follow_up: &mut FollowUp,
) -> Result<Vec<Final>, sqlx::Error> {
    let mut watched: Vec<&Final> = ended.iter().filter(|job| job.hooks & follow_up_flags::DEPENDENTS != 0).collect();
    watched.sort_unstable_by_key(|job| (job.tenant, job.id));
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let tenants: Vec<Uuid> = watched.iter().map(|job| job.tenant).collect();
    let ids: Vec<Uuid> = watched.iter().map(|job| job.id).collect();
    let fails: Vec<bool> = watched.iter().map(|job| job.state != JobState::Completed).collect();
    let edges = sqlx::query!(
        r#"with noted as (
             insert into job_cascades (tenant_id, job_id, fails)
             select i.tenant_id, i.depends_on, i.fails from unnest($1::uuid[], $2::uuid[], $3::bool[]) as i (tenant_id, depends_on, fails)
             where exists (select from job_dependencies d
                           where d.tenant_id = i.tenant_id and d.depends_on = i.depends_on and d.job_id <> all($4))
             on conflict (tenant_id, job_id) do nothing)
           delete from job_dependencies d using unnest($1::uuid[], $2::uuid[], $3::bool[]) as i (tenant_id, depends_on, fails)
           where d.tenant_id = i.tenant_id and d.depends_on = i.depends_on and d.job_id = any($4)
           returning d.job_id, d.depends_on, i.fails and not d.run_on_failure as "cancels!""#,
        &tenants,
        &ids,
        &fails,
        &locked.0
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut free, mut cancelled) = (BTreeMap::<Uuid, i16>::new(), BTreeMap::new());
    for edge in edges {
        *free.entry(edge.job_id).or_default() += 1;
        if edge.cancels {
            cancelled.insert(edge.job_id, edge.depends_on);
        }
    }
    free.retain(|id, _| !cancelled.contains_key(id));
    release(connection, &free, follow_up).await?;
    cancel(connection, &cancelled, follow_up).await
}

/// Lowers `waits_for` by the number of released dependencies; a job that reaches 0 may run.
pub(super) async fn release(
    connection: &mut PgConnection,
    free: &BTreeMap<Uuid, i16>,
    follow_up: &mut FollowUp,
) -> Result<(), sqlx::Error> {
    if free.is_empty() {
        return Ok(());
    }
    let (ids, counts): (Vec<Uuid>, Vec<i16>) = free.iter().map(|(id, count)| (*id, *count)).unzip();
    // The job becomes eligible now: its position in the flow and its waiting time count from here.
    let rows = sqlx::query!(
        "update jobs j set
           waits_for = j.waits_for - i.count,
           state = case when j.waits_for = i.count and j.run_at <= now() then 'available'::job_state else j.state end,
           run_at = case when j.waits_for = i.count then greatest(j.run_at, now()) else j.run_at end
         from (select * from unnest($1::uuid[], $2::int2[]) as t (id, count) order by id) i
         where j.id = i.id and j.id = any($1) and j.waits_for >= i.count and j.state not in ('completed', 'cancelled', 'discarded')
         returning j.id, j.tenant_id, j.queue, j.priority, j.run_at, j.waits_for",
        &ids,
        &counts
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        let Some((queue, job)) = waiting(row.id, row.tenant_id, &row.queue, row.priority, row.run_at) else { continue };
        if row.waits_for == 0 {
            follow_up.waiting.push((queue, job));
        } else {
            follow_up.touched.push((queue, job.tenant, job.id));
        }
    }
    Ok(())
}

async fn cancel(
    connection: &mut PgConnection,
    cancelled: &BTreeMap<Uuid, Uuid>,
    follow_up: &mut FollowUp,
) -> Result<Vec<Final>, sqlx::Error> {
    if cancelled.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, causes): (Vec<Uuid>, Vec<Uuid>) = cancelled.iter().map(|(id, cause)| (*id, *cause)).unzip();
    let rows = sqlx::query!(
        r#"update jobs j set
             state = 'cancelled', finalized_at = now(),
             errors = coalesce(j.errors, '[]') || jsonb_build_object('attempt', j.attempt, 'at', now(),
                 'error', 'cancelled: job ' || i.cause || ', which it waited for, did not complete')
           from (select * from unnest($1::uuid[], $2::uuid[]) as t (id, cause) order by id) i
           where j.id = i.id and j.id = any($1) and j.state not in ('completed', 'cancelled', 'discarded')
           returning j.id, j.tenant_id, j.queue, j.priority, j.attempt, j.state as "state: JobState", j.hooks, j.unique_key, j.batch_id, j.waits_for"#,
        &ids,
        &causes
    )
    .fetch_all(connection)
    .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        if let Ok(queue) = row.queue.parse() {
            let (tenant, priority) = (TenantId::new(row.tenant_id), Priority::from_ledger(row.priority));
            follow_up.cancelled.push(Position {
                id: row.id,
                tenant,
                queue,
                priority,
                attempt: row.attempt,
                follow_up: FollowUp::default(),
            });
        }
        ended.push(final_of!(row));
    }
    Ok(ended)
}
