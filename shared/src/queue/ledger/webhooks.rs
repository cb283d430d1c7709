//! Raises webhook events: the end of a job creates deliveries to the subscribed endpoints, in the
//! same transaction.
//!
//! Invariant: the deliveries of an end, and the jobs that send them, are committed with that end.
//! [`Watchers`] may err only by reporting an endpoint where there is none.

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

use crate::queue::{JobState, NewJob, Priority, QueueName, WaitingJob};
use crate::{
    clock::Clock,
    db::SystemDb,
    ids,
    tenancy::TenantId,
    webhooks::{DELIVERY_KIND, DELIVERY_MAX_ATTEMPTS, DELIVERY_QUEUE, FinalJob, SILENT_KINDS, delivery_job},
};

/// Interval between reads of the set.
const REFRESH: Duration = Duration::from_secs(1);
/// An older set is not trusted. A new endpoint receives the events of jobs that end this long after
/// its creation, or later.
const TRUSTED: Duration = Duration::from_secs(2);

/// The tenants that have endpoints, so that the ends of other tenants' jobs cost nothing extra.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<RwLock<Option<Reading>>>);

#[derive(Debug)]
struct Reading {
    read_at: Instant,
    tenants: HashSet<TenantId>,
}

impl Watchers {
    /// Refreshes the set until `stop`.
    pub async fn refresh(self, db: SystemDb, stop: CancellationToken) {
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.refresh_once(&db).await {
                tracing::debug!(%error, "failed to read which tenants have webhook endpoints");
            }
        }
    }

    /// Reads the set once.
    pub async fn refresh_once(&self, db: &SystemDb) -> Result<(), sqlx::Error> {
        // The set is as old as the moment before the query.
        let read_at = Instant::now();
        let tenants = sqlx::query_scalar!("select distinct tenant_id from webhook_endpoints where disabled_at is null")
            .fetch_all(db.pool())
            .await?;
        let tenants = tenants.into_iter().map(TenantId::new).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Reading { read_at, tenants });
        Ok(())
    }

    /// Whether the tenant may have an endpoint; also `true` while that is unknown.
    pub fn may_listen(&self, tenant: TenantId) -> bool {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(reading) if reading.read_at.elapsed() < TRUSTED => reading.tenants.contains(&tenant),
            _ => true,
        }
    }
}

struct SubscribedEnd {
    tenant: Uuid,
    endpoint_id: Uuid,
    job: FinalJob,
}

/// Whether an endpoint may have to be notified of the job's end.
pub fn may_raise(watchers: &Watchers, tenant: TenantId, kind: &str) -> bool {
    !SILENT_KINDS.contains(&kind) && watchers.may_listen(tenant)
}

/// Writes the deliveries of these jobs' ends to the subscribed endpoints, and the jobs that send
/// them. Returns those jobs, which are pushed to the index after the commit.
pub(in crate::queue) async fn raise(
    connection: &mut PgConnection,
    ended: &[Uuid],
) -> Result<Vec<(QueueName, WaitingJob)>, sqlx::Error> {
    // Only the new ids depend on the time.
    let clock = Clock::system();
    let mut rows = Rows::default();
    for SubscribedEnd { tenant, endpoint_id, job } in subscribed_ends(connection, ended).await? {
        let Some((event, body)) = job.message() else { continue };
        let delivery = ids::new_id(&clock);
        rows.tenants.push(tenant);
        rows.deliveries.push(delivery);
        rows.endpoints.push(endpoint_id);
        rows.types.push(event.as_str().to_owned());
        rows.ended.push(job.id);
        rows.bodies.push(body);
        rows.jobs.push(delivery_job(&clock, TenantId::new(tenant), delivery));
    }
    if !rows.jobs.is_empty() {
        rows.insert(connection).await?;
    }
    Ok(rows.jobs.iter().map(|job| (job.queue.clone(), job.waiting())).collect())
}

/// Deliveries with their jobs, as the column arrays for `unnest`.
#[derive(Default)]
struct Rows {
    tenants: Vec<Uuid>,
    deliveries: Vec<Uuid>,
    endpoints: Vec<Uuid>,
    types: Vec<String>,
    ended: Vec<Uuid>,
    bodies: Vec<String>,
    jobs: Vec<NewJob>,
}

impl Rows {
    async fn insert(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let jobs: Vec<Uuid> = self.jobs.iter().map(|job| job.id).collect();
        let args: Vec<String> = self.jobs.iter().map(|job| job.args.get().to_owned()).collect();
        sqlx::query!(
            "with deliveries as (
               insert into webhook_deliveries (tenant_id, id, endpoint_id, event_type, job_id, body, delivery_job_id)
               select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::uuid[]))
             insert into jobs (id, tenant_id, queue, kind, args, priority, max_attempts, state)
             select id, tenant_id, $8, $9, args::json, $10, $11, 'available'
             from unnest($7::uuid[], $1::uuid[], $12::text[]) as t (id, tenant_id, args)",
            &self.tenants,
            &self.deliveries,
            &self.endpoints,
            &self.types,
            &self.ended,
            &self.bodies,
            &jobs,
            DELIVERY_QUEUE,
            DELIVERY_KIND,
            Priority::DEFAULT.get(),
            DELIVERY_MAX_ATTEMPTS,
            &args
        )
        .execute(connection)
        .await
        .map(drop)
    }
}

/// Each end with each endpoint that subscribes to it. The message contains the last error only if
/// it belongs to the last attempt.
async fn subscribed_ends(connection: &mut PgConnection, ended: &[Uuid]) -> Result<Vec<SubscribedEnd>, sqlx::Error> {
    let silent: Vec<String> = SILENT_KINDS.iter().copied().map(str::to_owned).collect();
    // `offset 0`: without statistics the planner would begin with the endpoints, and read all of the
    // tenant's jobs for each.
    let rows = sqlx::query!(
        r#"select j.tenant_id, e.id as endpoint_id, j.id, j.kind, j.queue, j.state as "state: JobState", j.attempt,
                  j.result as "result: Json<Box<RawValue>>", j.finalized_at as "finalized_at!",
                  case when j.state <> 'completed' and (j.errors -> -1 -> 'attempt')::integer = j.attempt
                       then j.errors -> -1 ->> 'error' end as error
           from unnest($1::uuid[]) as i (id)
           cross join lateral (select tenant_id, id, kind, queue, state, attempt, result, errors, finalized_at
                               from jobs where id = i.id offset 0) j
           join webhook_endpoints e on e.tenant_id = j.tenant_id
           where j.finalized_at is not null and e.disabled_at is null and j.kind <> all($2)
             and 'job.' || j.state::text = any(e.events) and (e.kinds is null or j.kind = any(e.kinds))
           order by j.id, e.id"#,
        ended,
        &silent
    )
    .fetch_all(connection)
    .await?;
    let subscribed_ends = rows.into_iter().map(|row| SubscribedEnd {
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
    Ok(subscribed_ends.collect())
}
