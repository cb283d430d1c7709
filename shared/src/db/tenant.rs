//! Tenant access: transactions in which row level security shows the rows of one tenant.
//!
//! Invariant: the setting that the policies read is set with `set_config(…, true)`, so it ends with
//! the transaction and is never visible to the next user of the connection. No transaction begins
//! as a role that the policies do not apply to. One tenant holds at most its share of the
//! connections ([`super::shares`]).

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{PgConnection, Postgres, Transaction};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    fitness::Fitness,
    fitness_check::{self, Role},
    pool::{PoolSettings, SessionSettings},
    role_pool::RolePool,
    shares::Shares,
};
use crate::{patience, tenancy::TenantId};

/// A tenant that waits for its own lock must not hold a connection of the shared pool for long.
const SESSION: SessionSettings = SessionSettings { lock_timeout: "2s", planner: &[] };

/// Opens transactions of single tenants as `rota_app`.
#[derive(Clone, Debug)]
pub struct TenantDb {
    pool: RolePool,
    /// Whether the role has been verified to be subject to row level security.
    is_confined: Arc<AtomicBool>,
    shares: Arc<Shares>,
}

impl TenantDb {
    /// A pool for `url`, which must name the role `rota_app`. Connects on first use.
    pub fn open(url: &str, application: &str, settings: PoolSettings) -> Result<Self, sqlx::Error> {
        Ok(Self {
            pool: RolePool::open(url, application, settings, &SESSION)?,
            is_confined: Arc::default(),
            shares: Arc::new(Shares::of(settings)),
        })
    }

    /// Begins a transaction that sees only the rows of `tenant`. Waits for the tenant's share of
    /// the pool first; see [`super::is_share_in_use`]. A caller must end one transaction before it
    /// begins another. Fails when the request's waiting time is over.
    pub async fn begin(&self, tenant: TenantId) -> Result<TenantTx, sqlx::Error> {
        self.begin_planning(tenant, "auto").await
    }

    /// As [`Self::begin`], for statements that name their rows by a unique key: like those of the
    /// system role, they are planned once for any parameters. Planning them for each execution
    /// takes longer than the rest of a cancellation. A list may not use it, because its best plan
    /// depends on the filter.
    pub async fn begin_by_key(&self, tenant: TenantId) -> Result<TenantTx, sqlx::Error> {
        self.begin_planning(tenant, "force_generic_plan").await
    }

    async fn begin_planning(&self, tenant: TenantId, plan_cache_mode: &str) -> Result<TenantTx, sqlx::Error> {
        let share = self.shares.take(tenant).await?;
        let begun = Box::pin(self.begin_with(tenant, plan_cache_mode, share));
        // A job's wait is bounded by the pool only.
        match patience::of_request() {
            Some(patience) => timeout(patience, begun).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)),
            None => begun.await,
        }
    }

    async fn begin_with(
        &self,
        tenant: TenantId,
        plan_cache_mode: &str,
        share: OwnedSemaphorePermit,
    ) -> Result<TenantTx, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !self.is_confined.load(Ordering::Relaxed) {
            fitness_check::require_confined(&mut transaction).await?;
            self.is_confined.store(true, Ordering::Relaxed);
        }
        sqlx::query!(
            "select set_config('rota.tenant_id', $1, true) as tenant, set_config('plan_cache_mode', $2, true) as plans",
            tenant.to_string(),
            plan_cache_mode
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok(TenantTx { transaction, tenant, _share: share })
    }

    /// Whether the database is usable, for readiness.
    pub async fn fitness(&self) -> Fitness {
        fitness_check::examine(&self.pool, Role::App).await
    }

    /// Closes unused connections; call this every few seconds.
    pub async fn tidy(&self) {
        fitness_check::look_for_scarcity(&self.pool).await;
        self.pool.tidy().await;
    }
}

/// A transaction of one tenant. Rolled back when dropped.
#[derive(Debug)]
pub struct TenantTx {
    transaction: Transaction<'static, Postgres>,
    tenant: TenantId,
    /// Released after the connection, because fields are dropped in declaration order.
    _share: OwnedSemaphorePermit,
}

impl TenantTx {
    /// The tenant of the transaction.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Makes the changes durable.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}

impl Deref for TenantTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for TenantTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}
