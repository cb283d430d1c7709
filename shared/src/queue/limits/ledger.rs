//! The rows of `tenant_limits` and `queue_settings`.
//!
//! Invariant: a null column sets nothing. A value is taken from the queue's row, else from the
//! tenant's row for all queues, else from its tier; only [`AllLimits::limits`] resolves this. The
//! webhooks queue has a cap for every tenant, because the tenant's receiver determines how long a
//! run takes there.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use uuid::Uuid;

use super::{Limits, QueueScope, Rate, tier_weight};
use crate::{db::SystemDb, queue::QueueName, tenancy::TenantId, webhooks::DELIVERY_QUEUE};

/// Messages of one tenant sent at the same time, unless one of its rows says otherwise: a quarter
/// of a worker's slots.
pub const MAX_DELIVERIES: i32 = 5;

/// The values of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LimitRow {
    /// Share relative to other tenants.
    pub weight: Option<i32>,
    /// How many of its jobs may run at once.
    pub max_running: Option<i32>,
    /// How many of its jobs may start per second.
    pub rate_per_second: Option<f64>,
    /// Starts allowed at once after a time without any.
    pub burst: Option<i32>,
    /// Whether no job may start.
    pub paused: Option<bool>,
}

/// A row with its tenant and queue, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct NamedLimits {
    /// The tenant's slug.
    pub tenant: String,
    /// The tenant's id.
    pub tenant_id: Uuid,
    /// The queue, or `*` for all.
    pub queue: String,
    /// The row's values.
    #[serde(flatten)]
    pub row: LimitRow,
}

/// All limits in the ledger, as of one read.
#[derive(Debug, Default)]
pub struct AllLimits {
    tiers: HashMap<Uuid, String>,
    rows: HashMap<Uuid, HashMap<String, LimitRow>>,
    paused: HashSet<String>,
    /// Tenants that have webhook endpoints.
    listeners: HashSet<Uuid>,
}

impl AllLimits {
    /// Reads all limits. Tenants of the lowest tiers without a row are left out: the default
    /// applies to them.
    pub async fn read(db: &SystemDb) -> Result<Self, sqlx::Error> {
        let tiers = sqlx::query!("select id, tier from tenants where tier not in ('free', 'trial')");
        let rows = sqlx::query!(
            "select tenant_id, queue, weight, max_running, rate_per_second, burst, paused from tenant_limits"
        );
        let paused = sqlx::query_scalar!("select queue from queue_settings where paused");
        let listeners = sqlx::query_scalar!("select distinct tenant_id from webhook_endpoints");
        let (tiers, rows, paused, listeners) = tokio::try_join!(
            tiers.fetch_all(db.pool()),
            rows.fetch_all(db.pool()),
            paused.fetch_all(db.pool()),
            listeners.fetch_all(db.pool())
        )?;
        let mut table = Self {
            tiers: tiers.into_iter().map(|row| (row.id, row.tier)).collect(),
            rows: HashMap::new(),
            paused: paused.into_iter().collect(),
            listeners: listeners.into_iter().collect(),
        };
        for row in rows {
            let limits = LimitRow {
                weight: row.weight,
                max_running: row.max_running,
                rate_per_second: row.rate_per_second,
                burst: row.burst,
                paused: row.paused,
            };
            table.rows.entry(row.tenant_id).or_default().insert(row.queue, limits);
        }
        Ok(table)
    }

    /// Whether a queue is paused.
    pub fn is_paused(&self, queue: &QueueName) -> bool {
        self.paused.contains(queue.as_ref())
    }

    /// The tenants whose limits may differ from the default.
    pub fn tenants(&self) -> HashSet<TenantId> {
        self.tiers.keys().chain(self.rows.keys()).chain(&self.listeners).map(|&id| TenantId::new(id)).collect()
    }

    /// The limits in effect for a tenant in a queue.
    pub fn limits(&self, tenant: TenantId, queue: &QueueName) -> Limits {
        let own = |queue: &str| self.rows.get(tenant.as_uuid()).and_then(|rows| rows.get(queue)).copied();
        let rows = [own(queue.as_ref()).unwrap_or_default(), own("*").unwrap_or_default()];
        let tier = self.tiers.get(tenant.as_uuid()).map_or("free", String::as_str);
        let rate = |row: &LimitRow| Some(Rate { per_second: row.rate_per_second?, burst: row.burst? });
        Limits {
            weight: rows.iter().find_map(|row| row.weight).unwrap_or_else(|| tier_weight(tier)),
            max_running: rows
                .iter()
                .find_map(|row| row.max_running)
                .or_else(|| (queue.as_ref() == DELIVERY_QUEUE).then_some(MAX_DELIVERIES)),
            rate: rows.iter().find_map(rate),
            paused: rows.iter().find_map(|row| row.paused).unwrap_or(false),
        }
    }
}

/// The tenant with this id or slug.
pub async fn find_tenant(db: &SystemDb, name: &str) -> Result<Option<TenantId>, sqlx::Error> {
    let id = name.parse::<Uuid>().ok();
    let found = sqlx::query_scalar!("select id from tenants where slug = $1 or id = $2", name, id);
    Ok(found.fetch_optional(db.pool()).await?.map(TenantId::new))
}

/// Updates a tenant's row for a scope; values missing from `row` are kept, unless the row is
/// replaced.
pub async fn set(
    db: &SystemDb,
    tenant: TenantId,
    scope: &QueueScope,
    row: &LimitRow,
    anew: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into tenant_limits as l (tenant_id, queue, weight, max_running, rate_per_second, burst, paused)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (tenant_id, queue) do update set
           weight = coalesce(excluded.weight, case when not $8 then l.weight end),
           max_running = coalesce(excluded.max_running, case when not $8 then l.max_running end),
           rate_per_second = coalesce(excluded.rate_per_second, case when not $8 then l.rate_per_second end),
           burst = coalesce(excluded.burst, case when not $8 then l.burst end),
           paused = coalesce(excluded.paused, case when not $8 then l.paused end),
           updated_at = now()",
        tenant.as_uuid(),
        scope.to_string(),
        row.weight,
        row.max_running,
        row.rate_per_second,
        row.burst,
        row.paused,
        anew
    )
    .execute(db.pool())
    .await
    .map(drop)
}

/// Deletes a tenant's row for a scope.
pub async fn forget(db: &SystemDb, tenant: TenantId, scope: &QueueScope) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from tenant_limits where tenant_id = $1 and queue = $2", tenant.as_uuid(), scope.to_string())
        .execute(db.pool())
        .await
        .map(drop)
}

/// Pauses or resumes a queue.
pub async fn pause_queue(db: &SystemDb, queue: &QueueName, paused: bool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into queue_settings (queue, paused) values ($1, $2)
         on conflict (queue) do update set paused = excluded.paused, updated_at = now()",
        queue.as_ref(),
        paused
    )
    .execute(db.pool())
    .await
    .map(drop)
}

/// All rows, by tenant and queue.
pub async fn list(db: &SystemDb) -> Result<Vec<NamedLimits>, sqlx::Error> {
    let rows = sqlx::query!(
        "select t.slug, l.tenant_id, l.queue, l.weight, l.max_running, l.rate_per_second, l.burst, l.paused
         from tenant_limits l join tenants t on t.id = l.tenant_id order by t.slug, l.queue"
    )
    .fetch_all(db.pool())
    .await?;
    let named = rows.into_iter().map(|row| NamedLimits {
        tenant: row.slug,
        tenant_id: row.tenant_id,
        queue: row.queue,
        row: LimitRow {
            weight: row.weight,
            max_running: row.max_running,
            rate_per_second: row.rate_per_second,
            burst: row.burst,
            paused: row.paused,
        },
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_row_precedes_the_wildcard_row_and_that_the_tier() {
        let (id, email): (Uuid, QueueName) = (Uuid::max(), "email".parse().expect("a name"));
        let tenant = TenantId::new(id);
        let mut table = AllLimits::default();
        assert_eq!(table.limits(tenant, &email), Limits::default());
        table.tiers.insert(id, "enterprise".to_owned());
        assert_eq!(table.limits(tenant, &email).weight, 8);
        let all = LimitRow { weight: Some(3), max_running: Some(5), paused: Some(true), ..LimitRow::default() };
        table.rows.entry(id).or_default().insert("*".to_owned(), all);
        let own = LimitRow { weight: Some(7), paused: Some(false), ..LimitRow::default() };
        table.rows.entry(id).or_default().insert("email".to_owned(), own);
        let limits = table.limits(tenant, &email);
        assert_eq!((limits.weight, limits.max_running, limits.paused), (7, Some(5), false));
        let webhooks: QueueName = DELIVERY_QUEUE.parse().expect("a name");
        assert_eq!(AllLimits::default().limits(tenant, &webhooks).max_running, Some(MAX_DELIVERIES));
        assert_eq!(table.limits(tenant, &webhooks).max_running, Some(5), "its row for all queues");
        let other = table.limits(tenant, &"other".parse().expect("a name"));
        assert_eq!((other.weight, other.max_running, other.paused), (3, Some(5), true));
    }
}
