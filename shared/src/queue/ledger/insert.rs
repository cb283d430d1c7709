//! The SQL of an insert: all rows of a group in one statement, with their idempotency keys if there
//! are any.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    relations::Refused,
    request::{EnqueueRequest, Enqueued},
};
use crate::{db::TenantTx, queue::job::NewJob};

/// Rows as the column arrays for `unnest`.
#[derive(Default)]
pub(in crate::queue) struct Columns {
    pub(in crate::queue) ids: Vec<Uuid>,
    pub(in crate::queue) tenants: Vec<Uuid>,
    pub(in crate::queue) queues: Vec<String>,
    pub(in crate::queue) kinds: Vec<String>,
    pub(in crate::queue) args: Vec<String>,
    pub(in crate::queue) priorities: Vec<i16>,
    pub(in crate::queue) max_attempts: Vec<i16>,
    pub(in crate::queue) run_ats: Vec<Option<DateTime<Utc>>>,
    pub(in crate::queue) expires_ats: Vec<Option<DateTime<Utc>>>,
    pub(in crate::queue) args_versions: Vec<i16>,
}

impl Columns {
    pub(in crate::queue) fn of<'a>(jobs: impl Iterator<Item = &'a NewJob>) -> Self {
        let mut columns = Self::default();
        for job in jobs {
            columns.ids.push(job.id);
            columns.tenants.push(*job.tenant.as_uuid());
            columns.queues.push(job.queue.to_string());
            columns.kinds.push(job.kind.to_string());
            columns.args.push(job.args.get().to_owned());
            columns.priorities.push(job.priority.get());
            columns.max_attempts.push(job.max_attempts);
            columns.run_ats.push(job.run_at);
            columns.expires_ats.push(job.expires_at);
            columns.args_versions.push(job.args_version);
        }
        columns
    }
}

/// Idempotency keys as the column arrays for `unnest`; a request without a key has no row.
#[derive(Default)]
pub(super) struct KeyColumns {
    pub(super) tenants: Vec<Uuid>,
    pub(super) keys: Vec<String>,
    pub(super) fingerprints: Vec<Vec<u8>>,
    pub(super) first_jobs: Vec<Uuid>,
    pub(super) responses: Vec<Option<String>>,
}

impl KeyColumns {
    pub(super) fn of(requests: &[&EnqueueRequest]) -> Self {
        let mut columns = Self::default();
        for request in requests {
            let Some(idempotency) = &request.idempotency else { continue };
            columns.tenants.push(*request.jobs[0].tenant.as_uuid());
            columns.keys.push(idempotency.key.clone());
            columns.fingerprints.push(idempotency.fingerprint.clone());
            columns.first_jobs.push(request.first_job());
            columns.responses.push(idempotency.response.as_ref().map(|response| response.get().to_owned()));
        }
        columns
    }
}

macro_rules! insert_jobs {
    ($columns:expr, $executor:expr) => {
        sqlx::query!(
            "insert into jobs (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, state, expires_at, args_version)
             select id, tenant_id, queue, kind, args::json, priority, max_attempts, coalesce(run_at, now()),
                    case when run_at > now() then 'scheduled'::job_state else 'available' end, expires_at, args_version
             from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int2[], $7::int2[], $8::timestamptz[],
                         $9::timestamptz[], $10::int2[])
                  as t (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, expires_at, args_version)",
            &$columns.ids,
            &$columns.tenants,
            &$columns.queues,
            &$columns.kinds,
            &$columns.args,
            &$columns.priorities,
            &$columns.max_attempts,
            &$columns.run_ats as &[Option<DateTime<Utc>>],
            &$columns.expires_ats as &[Option<DateTime<Utc>>],
            &$columns.args_versions
        )
        .execute($executor)
        .await
        .map(drop)
    };
}

/// Inserts within a tenant's transaction; row level security rejects another tenant's job.
pub(in crate::queue) async fn insert_in(transaction: &mut TenantTx, jobs: &[NewJob]) -> Result<(), sqlx::Error> {
    let columns = Columns::of(jobs.iter());
    insert_jobs!(columns, &mut **transaction)
}

/// Inserts a group whose commit may have happened already; existing rows are not written again.
pub(in crate::queue) async fn insert_missing(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<Vec<Enqueued>, sqlx::Error> {
    let firsts: Vec<Uuid> = group.iter().map(|request| request.first_job()).collect();
    let present = present_of(connection, &firsts).await?;
    if present.is_empty() {
        return insert(connection, group).await;
    }
    // One statement wrote the group: if one job is present, all are, except those of requests whose
    // key had been used before.
    let missing: Vec<&EnqueueRequest> =
        group.iter().copied().filter(|request| !present.contains(&request.first_job())).collect();
    let mut replays = replays(connection, &missing).await?;
    Ok(group.iter().map(|request| replays.remove(&request.first_job()).unwrap_or(Enqueued::Created)).collect())
}

/// Which of the jobs are in the ledger.
pub(super) async fn present_of(connection: &mut PgConnection, jobs: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let present = sqlx::query_scalar!("select id from jobs where id = any($1)", jobs).fetch_all(connection).await?;
    Ok(present.into_iter().collect())
}

/// Inserts a group in one statement and returns the result of each request.
pub(in crate::queue) async fn insert(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<Vec<Enqueued>, sqlx::Error> {
    if group.iter().all(|request| request.idempotency.is_none()) {
        let columns = Columns::of(group.iter().flat_map(|request| &request.jobs));
        insert_jobs!(columns, connection)?;
        return Ok(group.iter().map(|_| Enqueued::Created).collect());
    }
    let reserved = insert_with_keys(connection, group).await?;
    let refused: Vec<&EnqueueRequest> = group
        .iter()
        .copied()
        .filter(|request| request.idempotency.is_some() && !reserved.contains(&request.first_job()))
        .collect();
    let mut replays = replays(connection, &refused).await?;
    Ok(group.iter().map(|request| replays.remove(&request.first_job()).unwrap_or(Enqueued::Created)).collect())
}

/// Reserves the keys and inserts the jobs of requests that have no key or reserved theirs. Returns
/// the first jobs of the requests whose keys were free. All writers take keys in the same order, so
/// that two groups cannot deadlock.
async fn insert_with_keys(
    connection: &mut PgConnection,
    group: &[&EnqueueRequest],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let jobs = Columns::of(group.iter().flat_map(|request| &request.jobs));
    let keyed: Vec<Option<Uuid>> = group
        .iter()
        .flat_map(|request| {
            let key = request.idempotency.as_ref().map(|_| request.first_job());
            request.jobs.iter().map(move |_| key)
        })
        .collect();
    let keys = KeyColumns::of(group);
    let reserved = sqlx::query_scalar!(
        r#"with reserved as (
             insert into idempotency_keys (tenant_id, key, fingerprint, first_id, response)
             select tenant_id, key, fingerprint, first_id, response::json
             from unnest($10::uuid[], $11::text[], $12::bytea[], $13::uuid[], $14::text[])
                  as t (tenant_id, key, fingerprint, first_id, response)
             order by tenant_id, key
             on conflict (tenant_id, key) do nothing
             returning first_id),
           inserted as (
             insert into jobs (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, state, expires_at, args_version)
             select id, tenant_id, queue, kind, args::json, priority, max_attempts, coalesce(run_at, now()),
                    case when run_at > now() then 'scheduled'::job_state else 'available' end, expires_at, args_version
             from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int2[], $7::int2[], $8::timestamptz[], $9::uuid[],
                         $15::timestamptz[], $16::int2[])
                  as t (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, keyed, expires_at, args_version)
             where keyed is null or keyed in (select first_id from reserved))
           select first_id as "first_id!" from reserved"#,
        &jobs.ids,
        &jobs.tenants,
        &jobs.queues,
        &jobs.kinds,
        &jobs.args,
        &jobs.priorities,
        &jobs.max_attempts,
        &jobs.run_ats as &[Option<DateTime<Utc>>],
        &keyed as &[Option<Uuid>],
        &keys.tenants,
        &keys.keys,
        &keys.fingerprints,
        &keys.first_jobs,
        &keys.responses as &[Option<String>],
        &jobs.expires_ats as &[Option<DateTime<Utc>>],
        &jobs.args_versions
    )
    .fetch_all(connection)
    .await?;
    Ok(reserved.into_iter().collect())
}

/// The results of earlier requests with the same keys, by the first job of the current request.
pub(in crate::queue) async fn replays(
    connection: &mut PgConnection,
    refused: &[&EnqueueRequest],
) -> Result<HashMap<Uuid, Enqueued>, sqlx::Error> {
    let mut results = HashMap::with_capacity(refused.len());
    for request in refused {
        match user_of_key(connection, request).await? {
            KeyUser::Another(result) => drop(results.insert(request.first_job(), result)),
            KeyUser::Itself => {}
            // The key expired between the two statements: nothing was written for this request, and
            // a retry finds the key free.
            KeyUser::Free => return Err(sqlx::Error::RowNotFound),
        }
    }
    Ok(results)
}

/// The request that holds an idempotency key.
pub(in crate::queue) enum KeyUser {
    /// The key is free, or the request has none.
    Free,
    /// The same request: its first try was committed after its connection had broken.
    Itself,
    /// An earlier request, with its result.
    Another(Enqueued),
}

pub(in crate::queue) async fn user_of_key(
    connection: &mut PgConnection,
    request: &EnqueueRequest,
) -> Result<KeyUser, sqlx::Error> {
    let Some(idempotency) = &request.idempotency else { return Ok(KeyUser::Free) };
    let used = sqlx::query!(
        r#"select fingerprint, first_id, response as "response: Json<Box<RawValue>>", refused as "refused: Json<Vec<Refused>>"
               from idempotency_keys where tenant_id = $1 and key = $2"#,
        request.jobs[0].tenant.as_uuid(),
        idempotency.key
    )
    .fetch_optional(connection)
    .await?;
    let Some(earlier) = used else { return Ok(KeyUser::Free) };
    if earlier.first_id == request.first_job() {
        return Ok(KeyUser::Itself);
    }
    if earlier.fingerprint != idempotency.fingerprint {
        return Ok(KeyUser::Another(Enqueued::KeyReused));
    }
    Ok(KeyUser::Another(Enqueued::Replayed {
        first_job: earlier.first_id,
        response: earlier.response.map(|Json(response)| response),
        refused: earlier.refused.map_or_else(Vec::new, |Json(refused)| refused),
    }))
}
