//! Raising events: a job's end becomes deliveries to the endpoints that listen, in the same transaction.
//!
//! Invariant: an end that is committed has its deliveries committed with it, and the jobs that send them. [`Watchers`] may only
//! err by saying that somebody listens.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{JobState, NewJob};
use crate::{
    clock::Clock,
    db::SystemDb,
    ids,
    tenancy::TenantId,
    webhooks::{FinalJob, SILENT_KINDS, delivery_job},
};

/// How often the set is read anew.
const REFRESH: Duration = Duration::from_secs(1);
/// An older set is not relied on. An endpoint hears of what ends this long after it was made, or later.
const TRUSTED: Duration = Duration::from_secs(2);

/// Which tenants have endpoints, so that the ends of all others' jobs cost nothing more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<RwLock<Option<(Instant, HashSet<TenantId>)>>>);

impl Watchers {
    /// Keeps the set fresh until `stop`.
    pub async fn refresh(self, db: SystemDb, stop: CancellationToken) {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.refresh_once(&db).await {
                tracing::debug!(%error, "who listens to events could not be read");
            }
        }
    }

    /// Reads the set.
    pub async fn refresh_once(&self, db: &SystemDb) -> Result<(), sqlx::Error> {
        // As old as the moment before the ledger was asked.
        let asked = Instant::now();
        let tenants = sqlx::query_scalar!("select distinct tenant_id from webhook_endpoints where disabled_at is null")
            .fetch_all(db.pool())
            .await?;
        let tenants = tenants.into_iter().map(TenantId::new).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((asked, tenants));
        Ok(())
    }

    /// Whether the tenant may have an endpoint: yes too while that is not known.
    pub fn may_listen(&self, tenant: TenantId) -> bool {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some((asked, tenants)) if asked.elapsed() < TRUSTED => tenants.contains(&tenant),
            _ => true,
        }
    }
}

struct Heard {
    tenant: Uuid,
    endpoint_id: Uuid,
    job: FinalJob,
}

/// Writes the deliveries of these jobs' ends, those that are final and that somebody listens to, and returns the jobs that send
/// them: the caller inserts those in the same transaction and announces them after its commit.
pub async fn raise(connection: &mut PgConnection, clock: &Clock, ended: &[Uuid]) -> Result<Vec<NewJob>, sqlx::Error> {
    let heard = heard(connection, ended).await?;
    let mut jobs = Vec::with_capacity(heard.len());
    let (mut tenants, mut ids, mut endpoints, mut types) = (vec![], vec![], vec![], vec![]);
    let (mut ended, mut bodies, mut delivery_jobs) = (vec![], vec![], vec![]);
    for Heard { tenant, endpoint_id, job } in heard {
        let Some((event, body)) = job.message() else { continue };
        let id = ids::new_id(clock);
        let delivery_job = delivery_job(clock, TenantId::new(tenant), id);
        tenants.push(tenant);
        ids.push(id);
        endpoints.push(endpoint_id);
        types.push(event.as_str().to_owned());
        ended.push(job.id);
        bodies.push(body);
        delivery_jobs.push(delivery_job.id);
        jobs.push(delivery_job);
    }
    if jobs.is_empty() {
        return Ok(jobs);
    }
    sqlx::query!(
        "insert into webhook_deliveries (tenant_id, id, endpoint_id, event_type, job_id, body, delivery_job_id)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::uuid[])",
        &tenants,
        &ids,
        &endpoints,
        &types,
        &ended,
        &bodies,
        &delivery_jobs
    )
    .execute(connection)
    .await?;
    Ok(jobs)
}

/// Each end with each endpoint that listens to it. The last error belongs to the message only if it is of the last attempt.
async fn heard(connection: &mut PgConnection, ended: &[Uuid]) -> Result<Vec<Heard>, sqlx::Error> {
    let silent = SILENT_KINDS.map(str::to_owned);
    let rows = sqlx::query!(
        r#"select j.tenant_id, e.id as endpoint_id, j.id, j.kind, j.queue, j.state as "state: JobState", j.attempt,
                  j.result as "result: Json<Box<RawValue>>", j.finalized_at as "finalized_at!",
                  case when j.state <> 'completed' and (j.errors -> -1 -> 'attempt')::integer = j.attempt
                       then j.errors -> -1 ->> 'error' end as error
           from jobs j join webhook_endpoints e on e.tenant_id = j.tenant_id
           where j.id = any($1) and j.finalized_at is not null and e.disabled_at is null and j.kind <> all($2)
             and 'job.' || j.state::text = any(e.events) and (e.kinds is null or j.kind = any(e.kinds))
           order by j.id, e.id"#,
        ended,
        &silent
    )
    .fetch_all(connection)
    .await?;
    let heard = rows.into_iter().map(|row| Heard {
        tenant: row.tenant_id,
        endpoint_id: row.endpoint_id,
        job: FinalJob {
            id: row.id,
            kind: row.kind,
            queue: row.queue,
            state: row.state,
            attempt: row.attempt,
            result: row.result.map(|Json(result)| result),
            error: row.error,
            finalized_at: row.finalized_at,
        },
    });
    Ok(heard.collect())
}
