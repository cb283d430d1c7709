//! The rows of leased jobs, read from the ledger.

use std::time::Duration;

use chrono::{DateTime, Utc};
use foldhash::HashMap;
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{Consumer, Lease, hold::Hold};
use crate::{
    faults::{self, Point},
    queue::{Priority, Shard},
    tenancy::TenantId,
};

/// A read that takes longer counts as lost, and the leases are released.
const ANSWERED: Duration = Duration::from_secs(10);

pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) kind: String,
    pub(super) args: Json<Box<RawValue>>,
    pub(super) is_final: bool,
    pub(super) priority: i16,
    pub(super) attempt: i32,
    pub(super) failures: i16,
    pub(super) crashes: i16,
    pub(super) max_attempts: i16,
    pub(super) run_at: DateTime<Utc>,
    pub(super) hooks: i16,
    pub(super) args_version: i16,
    pub(super) batch_id: Option<Uuid>,
    pub(super) waits_for: i16,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) now: DateTime<Utc>,
}

impl Consumer {
    pub(super) async fn read(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Row>, sqlx::Error> {
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashMap::default()) };
        faults::reach(Point::AfterLeaseBeforeRead).await?;
        // The bounds exclude partitions: with the list alone, each id would be looked up in every
        // partition. Values that follow from a row are computed here, because PostgreSQL takes
        // longer for them than for the lookup.
        let read = async |connection: &mut PgConnection| {
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
        let rows = self.connections.ask(ANSWERED, read).await?;
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }
}

impl Row {
    pub(super) fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= self.now)
    }

    pub(super) fn due_in_ms(&self) -> i64 {
        self.run_at.signed_duration_since(self.now).num_milliseconds()
    }

    pub(super) fn into_lease(self, shard: &Shard, hold: Hold, fallback: Priority) -> Lease {
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
            priority: Priority::new(self.priority).unwrap_or(fallback),
            run_at: self.run_at,
            hooks: self.hooks,
            batch_id: self.batch_id,
            args_version: self.args_version,
            token: hold.token,
            sure_until: hold.sure_until,
            lasts: hold.lasts,
        }
    }
}
