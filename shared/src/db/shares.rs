//! Each tenant's share of a connection pool.
//!
//! Invariant: the transactions of one tenant hold at most half of the pool (at least one
//! connection), however many requests and jobs it has, so the other half remains for other tenants.
//! Waiting for the share is bounded in time and holds no connection.

use std::{
    collections::HashMap,
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::PoolSettings;
use crate::{patience, tenancy::TenantId};

/// Once this many tenants are tracked, those that hold no connection are removed.
const FORGET_FROM: usize = 1_024;

/// The tenant's other transactions hold its share of the connections, so another one cannot begin
/// now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tenant's share of the database connections is in use")]
pub struct ShareInUse;

/// The shares of all tenants in one pool.
#[derive(Debug)]
pub(super) struct Shares {
    per_tenant: usize,
    patience: Duration,
    by_tenant: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Shares {
    pub(super) fn of(settings: PoolSettings) -> Self {
        let per_tenant = usize::try_from(settings.max_connections / 2).unwrap_or(1).max(1);
        Self { per_tenant, patience: settings.share_timeout, by_tenant: Mutex::default() }
    }

    /// Takes one connection's worth of the tenant's share, until the permit is dropped. The error
    /// is of the driver's type, so that callers handle one type only; [`is_share_in_use`]
    /// recognises it.
    pub(super) async fn take(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, sqlx::Error> {
        let wait = patience::of_request().map_or(self.patience, |patience| patience.min(self.patience));
        match timeout(wait, self.of_tenant(tenant).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("a share is never closed")),
            Err(_) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::WouldBlock, ShareInUse))),
        }
    }

    fn of_tenant(&self, tenant: TenantId) -> Arc<Semaphore> {
        // A panic while the lock is held leaves the map consistent.
        let mut by_tenant = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        if by_tenant.len() >= FORGET_FROM {
            by_tenant.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(by_tenant.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.per_tenant))))
    }
}

/// Whether a transaction could not begin because the tenant's other transactions hold its share of
/// the connections.
pub fn is_share_in_use(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<ShareInUse>))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn shares(max_connections: u32) -> Shares {
        Shares::of(PoolSettings {
            max_connections,
            share_timeout: Duration::from_millis(20),
            ..PoolSettings::default()
        })
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn a_share_is_half_of_the_pool_and_independent_of_other_tenants() {
        let shares = shares(5);
        let first = shares.take(tenant(1)).await.expect("one of two");
        let _second = shares.take(tenant(1)).await.expect("two of two");
        let refused = shares.take(tenant(1)).await.expect_err("its share is in use");
        assert!(is_share_in_use(&refused) && crate::db::is_unavailable(&refused), "{refused}");
        let _other = shares.take(tenant(2)).await.expect("another tenant has its own");
        drop(first);
        drop(shares.take(tenant(1)).await.expect("a released permit is available again"));
        assert!(!is_share_in_use(&sqlx::Error::PoolTimedOut));
    }

    #[tokio::test]
    async fn the_smallest_pool_has_a_share_of_one() {
        let shares = shares(1);
        let _only = shares.take(tenant(1)).await.expect("one");
        assert!(shares.take(tenant(1)).await.is_err());
    }

    #[tokio::test]
    async fn tenants_without_transactions_are_removed() {
        let shares = shares(2);
        let held = shares.take(tenant(0)).await.expect("one");
        for number in 1..=FORGET_FROM as u128 {
            drop(shares.take(tenant(number)).await.expect("one"));
        }
        assert!(shares.by_tenant.lock().expect("no panic").len() < FORGET_FROM);
        assert!(shares.take(tenant(0)).await.is_err(), "a tenant that holds a connection stays tracked");
        drop(held);
    }
}
