//! The SQL of related inserts. Each statement sorts the rows that it locks.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::queue::{
    job::{JobState, NewJob},
    ledger::insert::{Columns, KeyColumns},
    ledger::relations::{MAX_DEPENDENTS, Refused, UniqueUntil, follow_up_flags},
    ledger::request::EnqueueRequest,
};

const EDGES_PER_STATEMENT: usize = 2_000;

/// A job to be inserted.
pub(super) struct RelatedRow<'a> {
    pub(super) job: &'a NewJob,
    pub(super) waits_for: i16,
    pub(super) hooks: i16,
}

/// A dependency of one job on another.
pub(super) struct Edge {
    pub(super) tenant: Uuid,
    pub(super) job: Uuid,
    pub(super) depends_on: Uuid,
    pub(super) run_on_failure: bool,
}

/// A new batch.
pub(super) struct BatchRow {
    pub(super) tenant: Uuid,
    pub(super) id: Uuid,
    pub(super) total: i32,
    pub(super) completion_job: Uuid,
}

/// Reserves idempotency keys; returns the first jobs of the requests whose keys were free.
pub(super) async fn reserve_keys(
    connection: &mut PgConnection,
    keyed: &[&EnqueueRequest],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let keys = KeyColumns::of(keyed);
    let reserved = sqlx::query_scalar!(
        "insert into idempotency_keys (tenant_id, key, fingerprint, first_id, response)
         select tenant_id, key, fingerprint, first_id, response::json
         from unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::text[]) as t (tenant_id, key, fingerprint, first_id, response)
         order by tenant_id, key on conflict (tenant_id, key) do nothing returning first_id",
        &keys.tenants,
        &keys.keys,
        &keys.fingerprints,
        &keys.first_jobs,
        &keys.responses as &[Option<String>]
    )
    .fetch_all(connection)
    .await?;
    Ok(reserved.into_iter().collect())
}

pub(super) async fn free_key(connection: &mut PgConnection, tenant: Uuid, key: &str) -> Result<(), sqlx::Error> {
    let delete = sqlx::query!("delete from idempotency_keys where tenant_id = $1 and key = $2", tenant, key);
    delete.execute(connection).await.map(drop)
}

pub(super) async fn note_refused(
    connection: &mut PgConnection,
    tenant: Uuid,
    key: &str,
    refused: &[Refused],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update idempotency_keys set refused = $3 where tenant_id = $1 and key = $2",
        tenant,
        key,
        Json(refused) as _
    )
    .execute(connection)
    .await
    .map(drop)
}

/// A dependency, read under its lock.
#[derive(Clone, Copy)]
pub(super) struct Dependency {
    pub(super) state: JobState,
    /// How many more dependents it may get.
    pub(super) room: i64,
}

/// Locks the dependencies and flags those that are not final, so that their follow-up looks for
/// dependents. A dependency that is missing from the result does not exist for that tenant.
pub(super) async fn hook_dependencies(
    connection: &mut PgConnection,
    outside: &[(Uuid, Uuid)],
) -> Result<HashMap<(Uuid, Uuid), Dependency>, sqlx::Error> {
    let (ids, tenants): (Vec<Uuid>, Vec<Uuid>) = outside.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"select j.id, j.tenant_id, j.state as "state: JobState", j.hooks from unnest($1::uuid[], $2::uuid[]) as i (id, tenant_id)
           join jobs j on j.id = i.id and j.tenant_id = i.tenant_id order by j.id for no key update of j"#,
        &ids,
        &tenants
    )
    .fetch_all(&mut *connection)
    .await?;
    let open = || rows.iter().filter(|row| !row.state.is_final());
    let watched = open().filter(|row| row.hooks & follow_up_flags::DEPENDENTS != 0).map(|row| (row.id, row.tenant_id));
    let dependents = count_dependents(connection, watched.unzip()).await?;
    let unmarked: Vec<Uuid> =
        open().filter(|row| row.hooks & follow_up_flags::DEPENDENTS == 0).map(|row| row.id).collect();
    sqlx::query!("update jobs set hooks = hooks | 4 where id = any($1)", &unmarked).execute(connection).await?;
    let found = rows.into_iter().map(|row| {
        let room = i64::from(MAX_DEPENDENTS) - dependents.get(&row.id).copied().unwrap_or_default();
        ((row.id, row.tenant_id), Dependency { state: row.state, room })
    });
    Ok(found.collect())
}

/// How many dependents each job already has, up to the bound. A separate statement, run after the
/// locks: until the commit none is added.
async fn count_dependents(
    connection: &mut PgConnection,
    (ids, tenants): (Vec<Uuid>, Vec<Uuid>),
) -> Result<HashMap<Uuid, i64>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"select i.id as "id!", d.dependents as "dependents!" from unnest($1::uuid[], $2::uuid[]) as i (id, tenant_id)
           cross join lateral (select count(*) as dependents from (
             select from job_dependencies d where d.tenant_id = i.tenant_id and d.depends_on = i.id limit $3) d) d"#,
        &ids,
        &tenants,
        i64::from(MAX_DEPENDENTS)
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.dependents)).collect())
}

/// Takes the keys that are free or expired; returns the holder of each. The key rows stay locked
/// until the commit, so the result is still true then.
pub(super) async fn take_unique_keys(
    connection: &mut PgConnection,
    wanted: &BTreeMap<(Uuid, String), (Uuid, UniqueUntil)>,
) -> Result<HashMap<(Uuid, String), Uuid>, sqlx::Error> {
    let (mut tenants, mut keys, mut jobs, mut seconds) = (vec![], vec![], vec![], vec![]);
    for ((tenant, key), (job, until)) in wanted {
        tenants.push(*tenant);
        keys.push(key.clone());
        jobs.push(*job);
        seconds.push(match until {
            UniqueUntil::Final => None,
            UniqueUntil::Elapsed(period) => Some(period.as_secs_f64()),
        });
    }
    sqlx::query!(
        "insert into unique_keys as k (tenant_id, key, job_id, expires_at)
         select tenant_id, key, job_id, now() + make_interval(secs => seconds)
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::float8[]) as t (tenant_id, key, job_id, seconds)
         order by tenant_id, key
         on conflict (tenant_id, key) do update set job_id = excluded.job_id, expires_at = excluded.expires_at
         where k.expires_at <= now()",
        &tenants,
        &keys,
        &jobs,
        &seconds as &[Option<f64>]
    )
    .execute(&mut *connection)
    .await?;
    let holders = sqlx::query!(
        "select k.tenant_id, k.key, k.job_id from unnest($1::uuid[], $2::text[]) as i (tenant_id, key)
         join unique_keys k on k.tenant_id = i.tenant_id and k.key = i.key",
        &tenants,
        &keys
    )
    .fetch_all(connection)
    .await?;
    Ok(holders.into_iter().map(|row| ((row.tenant_id, row.key), row.job_id)).collect())
}

/// Frees keys that were taken in this transaction by jobs refused afterwards.
pub(super) async fn free_unique_keys(
    connection: &mut PgConnection,
    taken: &[(Uuid, String)],
) -> Result<(), sqlx::Error> {
    for (tenant, key) in taken {
        sqlx::query!("delete from unique_keys where tenant_id = $1 and key = $2", tenant, key)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn holder_of(
    connection: &mut PgConnection,
    tenant: Uuid,
    key: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("select job_id from unique_keys where tenant_id = $1 and key = $2", tenant, key)
        .fetch_optional(connection)
        .await
}

/// Inserts jobs with all columns, including those of relations.
pub(super) async fn insert_jobs(connection: &mut PgConnection, rows: &[RelatedRow<'_>]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows.iter().map(|row| row.job));
    let relations = || rows.iter().map(|row| row.job.relations.as_deref());
    let keys: Vec<Option<String>> =
        relations().map(|relations| Some(relations?.unique.as_ref()?.key.clone())).collect();
    let batches: Vec<Option<Uuid>> = relations().map(|relations| relations?.batch_id()).collect();
    let waits: Vec<i16> = rows.iter().map(|row| row.waits_for).collect();
    let hooks: Vec<i16> = rows.iter().map(|row| row.hooks).collect();
    sqlx::query!(
        "insert into jobs (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, state, expires_at, args_version,
                           unique_key, batch_id, waits_for, hooks)
         select id, tenant_id, queue, kind, args::json, priority, max_attempts, coalesce(run_at, now()),
                case when run_at > now() or waits_for > 0 then 'scheduled'::job_state else 'available' end,
                expires_at, args_version, unique_key, batch_id, waits_for, hooks
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int2[], $7::int2[], $8::timestamptz[],
                     $9::timestamptz[], $10::int2[], $11::text[], $12::uuid[], $13::int2[], $14::int2[])
              as t (id, tenant_id, queue, kind, args, priority, max_attempts, run_at, expires_at, args_version,
                    unique_key, batch_id, waits_for, hooks)",
        &columns.ids,
        &columns.tenants,
        &columns.queues,
        &columns.kinds,
        &columns.args,
        &columns.priorities,
        &columns.max_attempts,
        &columns.run_ats as &[Option<DateTime<Utc>>],
        &columns.expires_ats as &[Option<DateTime<Utc>>],
        &columns.args_versions,
        &keys as &[Option<String>],
        &batches as &[Option<Uuid>],
        &waits,
        &hooks
    )
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn insert_edges(connection: &mut PgConnection, edges: &[Edge]) -> Result<(), sqlx::Error> {
    for edges in edges.chunks(EDGES_PER_STATEMENT) {
        insert_some_edges(connection, edges).await?;
    }
    Ok(())
}

async fn insert_some_edges(connection: &mut PgConnection, edges: &[Edge]) -> Result<(), sqlx::Error> {
    let tenants: Vec<Uuid> = edges.iter().map(|edge| edge.tenant).collect();
    let jobs: Vec<Uuid> = edges.iter().map(|edge| edge.job).collect();
    let depends_on: Vec<Uuid> = edges.iter().map(|edge| edge.depends_on).collect();
    let policies: Vec<bool> = edges.iter().map(|edge| edge.run_on_failure).collect();
    sqlx::query!(
        "insert into job_dependencies (tenant_id, job_id, depends_on, run_on_failure)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bool[])",
        &tenants,
        &jobs,
        &depends_on,
        &policies
    )
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn insert_batches(connection: &mut PgConnection, batches: &[BatchRow]) -> Result<(), sqlx::Error> {
    for batch in batches {
        sqlx::query!(
            "insert into batches (tenant_id, id, total, pending, completion_job) values ($1, $2, $3, $3, $4)",
            batch.tenant,
            batch.id,
            batch.total,
            batch.completion_job
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
