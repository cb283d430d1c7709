//! Inserts requests whose jobs have relations (unique keys, dependencies, batches): one transaction
//! for a group.
//!
//! Invariant: everything that a relation needs is committed with the job or not at all. Locks are
//! taken in the order of [`crate::queue::ledger::follow_up`], idempotency keys first. Requests without
//! relations do not use this module.
//!
//! Next: `insert_related/write.rs` for the jobs themselves, `insert_related/plan.rs` for the jobs that are refused.

mod plan;
mod statements;
mod write;

use std::collections::{HashMap, HashSet};

use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{
    insert::{KeyUser, present_of, replays, user_of_key},
    relations::{Refusal, Refused, Relations},
    request::{Committed, EnqueueRequest, Enqueued},
};
use crate::{db::TenantTx, queue::job::NewJob};

/// Whether a request needs a related insert.
pub(in crate::queue) fn has_relations(jobs: &[NewJob]) -> bool {
    jobs.iter().any(|job| job.relations.is_some())
}

/// Whether a refusal within a request can refuse jobs of it that hold unique keys. Such a request
/// is committed alone, so that no other request of its group is refused in favour of a key holder
/// that is never committed.
pub(in crate::queue) fn must_be_alone(jobs: &[NewJob]) -> bool {
    let relations = || jobs.iter().filter_map(|job| job.relations.as_deref());
    relations().any(|relations| !relations.after.is_empty()) && relations().any(|relations| relations.unique.is_some())
}

/// Inserts jobs with relations within a tenant's transaction and returns those refused.
pub(in crate::queue) async fn insert_in(
    transaction: &mut TenantTx,
    jobs: &[NewJob],
) -> Result<Vec<Refused>, sqlx::Error> {
    let written = write::write(transaction, &[jobs]).await?;
    Ok(refused_of(jobs, &written.refused))
}

/// Inserts a group and returns the result of each request.
pub(in crate::queue) async fn insert(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<Committed, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let mut results = reserve(&mut transaction, group).await?;
    let open: Vec<&EnqueueRequest> =
        group.iter().copied().filter(|request| !results.contains_key(&request.first_job())).collect();
    let requests: Vec<&[NewJob]> = open.iter().map(|request| request.jobs.as_slice()).collect();
    let written = write::write(&mut transaction, &requests).await?;
    for request in &open {
        let refused = refused_of(&request.jobs, &written.refused);
        note_refused(&mut transaction, request, &refused).await?;
        results.insert(request.first_job(), Enqueued::created_except(refused));
    }
    transaction.commit().await?;
    Ok(committed(group, results, written.idle))
}

/// Inserts a group whose commit may have happened already. Existing rows are not written again.
pub(in crate::queue) async fn insert_missing(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<Committed, sqlx::Error> {
    let ids: Vec<Uuid> = group.iter().flat_map(|request| &request.jobs).map(|job| job.id).collect();
    let present = present_of(connection, &ids).await?;
    if present.is_empty() {
        return insert(connection, group).await;
    }
    // One transaction wrote the group, so a missing job was refused, or its request replayed an
    // earlier one. A request refused as a whole freed its key, which therefore no longer refers to
    // it.
    let mut results = HashMap::with_capacity(group.len());
    for request in group {
        let missing = request.jobs.iter().all(|job| !present.contains(&job.id));
        let result = match if missing { user_of_key(connection, request).await? } else { KeyUser::Itself } {
            KeyUser::Another(result) => result,
            KeyUser::Itself | KeyUser::Free => Enqueued::created_except(explain(connection, request, &present).await?),
        };
        results.insert(request.first_job(), result);
    }
    // Which of the jobs may run is unknown here; the sweep pushes them.
    Ok(committed(group, results, ids.into_iter().collect()))
}

/// Reserves the idempotency keys; returns the results of requests whose key was used before.
async fn reserve(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<HashMap<Uuid, Enqueued>, sqlx::Error> {
    let keyed: Vec<&EnqueueRequest> = group.iter().copied().filter(|request| request.idempotency.is_some()).collect();
    if keyed.is_empty() {
        return Ok(HashMap::new());
    }
    let reserved = statements::reserve_keys(connection, &keyed).await?;
    let refused: Vec<&EnqueueRequest> =
        keyed.into_iter().filter(|request| !reserved.contains(&request.first_job())).collect();
    replays(connection, &refused).await
}

/// Stores the refusals with the key, so that a repeat gets the same result. A request of which
/// nothing was committed frees its key.
async fn note_refused(
    connection: &mut PgConnection,
    request: &EnqueueRequest,
    refused: &[Refused],
) -> Result<(), sqlx::Error> {
    let Some(idempotency) = request.idempotency.as_ref().filter(|_| !refused.is_empty()) else { return Ok(()) };
    let tenant = *request.jobs[0].tenant.as_uuid();
    if refused.len() == request.jobs.len() {
        statements::free_key(connection, tenant, &idempotency.key).await
    } else {
        statements::note_refused(connection, tenant, &idempotency.key, refused).await
    }
}

/// Why jobs that are not in the ledger were refused, as far as can be determined afterwards.
async fn explain(
    connection: &mut PgConnection,
    request: &EnqueueRequest,
    present: &HashSet<Uuid>,
) -> Result<Vec<Refused>, sqlx::Error> {
    let mut refused = Vec::new();
    for job in request.jobs.iter().filter(|job| !present.contains(&job.id)) {
        let unique = job.relations.as_deref().and_then(|relations: &Relations| relations.unique.as_ref());
        let holder = match unique {
            Some(unique) => statements::holder_of(connection, *job.tenant.as_uuid(), &unique.key).await?,
            None => None,
        };
        let refusal = holder.map_or(Refusal::DependencyRefused { place: 0 }, |holder| Refusal::Duplicate { holder });
        refused.push(Refused { id: job.id, refusal });
    }
    Ok(refused)
}

fn refused_of(jobs: &[NewJob], refused: &HashMap<Uuid, Refusal>) -> Vec<Refused> {
    let refusal = |job: &NewJob| Some(Refused { id: job.id, refusal: refused.get(&job.id)?.clone() });
    jobs.iter().filter_map(refusal).collect()
}

fn committed(group: &[&EnqueueRequest], mut results: HashMap<Uuid, Enqueued>, idle: HashSet<Uuid>) -> Committed {
    let results = group.iter().map(|request| results.remove(&request.first_job()).unwrap_or(Enqueued::Created));
    Committed { answers: results.collect(), idle }
}
