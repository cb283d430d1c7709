//! Writes jobs with their relations, step by step within a transaction.
//!
//! Invariant: the steps take locks in the common order: dependencies by id, then unique keys. The
//! batch rows are new, so no other transaction can hold them.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    plan::{Plan, member_of},
    statements::{self, BatchRow, Edge, RelatedRow},
};
use crate::queue::{
    NewJob,
    ledger::follow_up::{self, Final, Locked},
    ledger::relations::{BatchPart, DependencyFailure, Refusal, Relations, follow_up_flags},
};

/// The result of the writes.
pub(super) struct Written {
    pub(super) refused: HashMap<Uuid, Refusal>,
    /// Jobs that are not pushed to the index: refused, already final, or waiting for others.
    pub(super) idle: HashSet<Uuid>,
}

pub(super) async fn write(connection: &mut PgConnection, requests: &[&[NewJob]]) -> Result<Written, sqlx::Error> {
    let mut plan = Plan::new(requests);
    let outside = plan.outside();
    if !outside.is_empty() {
        plan.find(statements::hook_dependencies(connection, &outside).await?);
    }
    take_keys(connection, &mut plan).await?;
    let rows: Vec<RelatedRow<'_>> = rows(&plan);
    statements::insert_jobs(connection, &rows).await?;
    statements::insert_edges(connection, &edges(&plan)).await?;
    statements::insert_batches(connection, &batches(&plan)).await?;
    let mut idle: HashSet<Uuid> = plan.refused.keys().copied().collect();
    idle.extend(rows.iter().filter(|row| row.waits_for > 0).map(|row| row.job.id));
    // A job whose dependency had failed before is treated as if that dependency failed a moment
    // later.
    let own = Locked::own(rows.iter().map(|row| row.job.id));
    let follow_up = follow_up::settle_latecomers(connection, failed(&plan), &own).await?;
    for (_, job) in &follow_up.waiting {
        idle.remove(&job.id);
    }
    Ok(Written { refused: plan.refused, idle })
}

/// Of several jobs with one key, the first tries to take it; the others are refused with the
/// resulting holder.
async fn take_keys(connection: &mut PgConnection, plan: &mut Plan<'_>) -> Result<(), sqlx::Error> {
    let mut wanted = BTreeMap::new();
    for (job, relations) in plan.kept() {
        if let Some(unique) = &relations.unique {
            wanted.entry((*job.tenant.as_uuid(), unique.key.clone())).or_insert((job.id, unique.until));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let holders = statements::take_unique_keys(connection, &wanted).await?;
    let refused_later = plan.refuse_duplicates(&holders);
    let taken: Vec<_> =
        wanted.into_iter().filter(|(_, (job, _))| refused_later.contains(job)).map(|(key, _)| key).collect();
    statements::free_unique_keys(connection, &taken).await
}

fn rows<'a>(plan: &Plan<'a>) -> Vec<RelatedRow<'a>> {
    let mut rows = Vec::with_capacity(plan.jobs.len());
    for job in plan.jobs.iter().filter(|job| !plan.refused.contains_key(&job.id)) {
        let waits_for = job.relations.as_deref().map_or(0, |relations| waits_for(plan, job, relations));
        rows.push(RelatedRow { job, waits_for, hooks: 0 });
    }
    let waited_for: HashSet<Uuid> = edges(plan).into_iter().map(|edge| edge.depends_on).collect();
    for row in &mut rows {
        row.hooks = row.job.relations.as_deref().map_or(0, Relations::follow_up_flags)
            | if waited_for.contains(&row.job.id) { follow_up_flags::DEPENDENTS } else { 0 };
    }
    rows
}

fn waits_for(plan: &Plan<'_>, job: &NewJob, relations: &Relations) -> i16 {
    let jobs = i16::try_from(plan.open_dependencies(job, relations).len()).expect("the API bounds dependencies");
    jobs + i16::from(matches!(relations.batch, Some(BatchPart::Completion(_))))
}

fn edges(plan: &Plan<'_>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (job, relations) in plan.kept() {
        let run_on_failure = relations.on_dependency_failure == DependencyFailure::Run;
        for depends_on in plan.open_dependencies(job, relations) {
            edges.push(Edge { tenant: *job.tenant.as_uuid(), job: job.id, depends_on, run_on_failure });
        }
    }
    edges
}

fn batches(plan: &Plan<'_>) -> Vec<BatchRow> {
    let mut totals = HashMap::<Uuid, i32>::new();
    for (_, relations) in plan.kept() {
        if let Some(batch) = member_of(relations) {
            *totals.entry(batch).or_default() += 1;
        }
    }
    let mut batches = Vec::new();
    for (job, relations) in plan.kept() {
        if let Some(BatchPart::Completion(id)) = relations.batch {
            let total = totals.get(&id).copied().unwrap_or_default();
            batches.push(BatchRow { tenant: *job.tenant.as_uuid(), id, total, completion_job: job.id });
        }
    }
    batches
}

fn failed(plan: &Plan<'_>) -> Vec<Final> {
    let failed = plan.failed().map(|(id, tenant, state)| Final {
        id,
        tenant,
        state,
        hooks: follow_up_flags::DEPENDENTS,
        unique_key: None,
        batch_id: None,
        waits_for: 0,
    });
    failed.collect()
}
