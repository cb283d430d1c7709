//! The rows of leased jobs, read from the ledger, and which of them are locked.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use foldhash::{HashMap, HashSet};
use serde_json::value::RawValue;
use sqlx::{Executor, PgConnection, Postgres, types::Json};
use uuid::Uuid;

use crate::{
    db::{PinnedConnections, SystemDb},
    faults::{self, Point},
    queue::{
        job::Priority,
        lease::{Lease, LeasedRef},
        shard::Shard,
    },
    tenancy::TenantId,
};

/// A read that takes longer counts as lost, and the leases are released.
const ANSWERED: Duration = Duration::from_secs(10);

/// The row of a leased job.
pub(in crate::queue) struct Row {
    pub(in crate::queue) id: Uuid,
    pub(in crate::queue) tenant_id: Uuid,
    pub(in crate::queue) kind: String,
    pub(in crate::queue) args: Json<Box<RawValue>>,
    pub(in crate::queue) is_final: bool,
    pub(in crate::queue) priority: i16,
    pub(in crate::queue) attempt: i32,
    pub(in crate::queue) failures: i16,
    pub(in crate::queue) crashes: i16,
    pub(in crate::queue) max_attempts: i16,
    pub(in crate::queue) run_at: DateTime<Utc>,
    pub(in crate::queue) hooks: i16,
    pub(in crate::queue) args_version: i16,
    pub(in crate::queue) batch_id: Option<Uuid>,
    pub(in crate::queue) waits_for: i16,
    pub(in crate::queue) expires_at: Option<DateTime<Utc>>,
    pub(in crate::queue) now: DateTime<Utc>,
}

/// Reads the rows of these jobs.
pub(in crate::queue) async fn read(
    connections: &PinnedConnections,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Row>, sqlx::Error> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashMap::default()) };
    faults::reach(Point::AfterLeaseBeforeRead).await?;
    // The bounds exclude partitions: with the list alone, each id would be looked up in every
    // partition. Values that follow from a row are computed here, because PostgreSQL takes longer
    // for them than for the lookup.
    let query = async |connection: &mut PgConnection| {
        sqlx::query_as!(
            Row,
            r#"select id, tenant_id, kind, args as "args: Json<Box<RawValue>>",
                      state in ('completed', 'cancelled', 'discarded') as "is_final!", priority, attempt, failures, crashes, max_attempts,
                      run_at, hooks, args_version, batch_id, waits_for, expires_at, now() as "now!"
               from jobs where id = any($1) and id between $2 and $3"#,
            ids,
            first,
            last
        )
        .fetch_all(connection)
        .await
    };
    let rows = connections.run(ANSWERED, query).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Which of these runs, by id and attempt, the ledger no longer expects: the job is final, or its
/// attempt was raised.
pub(in crate::queue) async fn unexpected_runs(
    db: &SystemDb,
    ids: &[Uuid],
    attempts: &[i32],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select i.id as "id!" from unnest($1::uuid[], $2::int4[]) as i (id, attempt)
               where not exists (select from jobs j where j.id = i.id and j.attempt = i.attempt
                                 and j.state not in ('completed', 'cancelled', 'discarded'))"#,
        ids,
        attempts
    )
    .fetch_all(db.pool())
    .await
}

/// Which of these jobs neither wait nor run: they are final, or have no row.
pub(in crate::queue) async fn ended(db: &SystemDb, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashSet::default());
    }
    let ended = sqlx::query_scalar!(
        r#"select i.id as "id!" from unnest($1::uuid[]) as i (id)
           where not exists (select from jobs j where j.id = i.id and j.state not in ('completed', 'cancelled', 'discarded'))"#,
        ids
    )
    .fetch_all(db.pool())
    .await?;
    Ok(ended.into_iter().collect())
}

/// Which of these jobs have rows that another transaction has locked. Does not wait for the locks.
pub(in crate::queue) async fn locked(
    executor: impl Executor<'_, Database = Postgres>,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashSet::default());
    }
    let locked = sqlx::query_scalar!(
        r#"with free as (select id from jobs where id = any($1) order by id for no key update skip locked)
           select id from jobs where id = any($1) and id not in (select id from free)"#,
        ids
    )
    .fetch_all(executor)
    .await?;
    Ok(locked.into_iter().collect())
}

impl Row {
    pub(in crate::queue) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= self.now)
    }

    pub(in crate::queue) fn due_in_ms(&self) -> i64 {
        self.run_at.signed_duration_since(self.now).num_milliseconds()
    }

    pub(in crate::queue) fn into_lease(
        self,
        shard: &Shard,
        leased: &LeasedRef,
        sure_until: Instant,
        lasts: Duration,
    ) -> Lease {
        Lease {
            id: self.id,
            tenant: TenantId::new(self.tenant_id),
            shard: shard.clone(),
            kind: self.kind,
            args: self.args.0,
            attempt: self.attempt,
            failures: self.failures,
            crashes: self.crashes,
            max_attempts: self.max_attempts,
            priority: Priority::new(self.priority).unwrap_or(leased.priority),
            run_at: self.run_at,
            follow_up_flags: self.hooks,
            batch_id: self.batch_id,
            args_version: self.args_version,
            token: leased.token,
            sure_until,
            lasts,
        }
    }
}
