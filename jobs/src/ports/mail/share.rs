//! Admission to the relay's connections: a share for each tenant, and a brake for domains that do
//! not respond.
//!
//! Invariant: one tenant never holds all connections, if there are four or more. No mail waits for
//! a connection longer than [`PATIENCE`], because waiting occupies a worker's slot. A recipient
//! domain whose mails hang gets one attempt at a time, with growing pauses, from the tenant that
//! writes to it. A refusal here does not count as a failure of the mail.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::tenancy::TenantId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// Maximum wait for a free connection.
const PATIENCE: Duration = Duration::from_secs(1);
/// Consecutive hangs after which a domain is braked.
const HANGS: u32 = 2;
const LONGEST_BRAKE: Duration = Duration::from_mins(5);
/// Maximum number of tracked tenants and domains; beyond it, unused entries are removed.
const REMEMBERED: usize = 10_000;

/// A tenant and the recipient domain.
type Way = (TenantId, String);

/// The shares of one relay.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    per_tenant: usize,
    /// Duration of the first brake.
    pause: Duration,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    hanging: Mutex<HashMap<Way, Hanging>>,
}

#[derive(Debug)]
struct Hanging {
    in_a_row: u32,
    next: Instant,
}

/// The permit for one connection.
#[derive(Debug)]
pub(super) struct Pass {
    way: Way,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// No connection is available now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy {
    pub retry_in: Duration,
}

impl Shares {
    pub fn new(connections: usize, pause: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(connections)),
            per_tenant: connections - connections / 4,
            pause,
            tenants: Mutex::default(),
            hanging: Mutex::default(),
        }
    }

    /// Waits briefly for a connection that this tenant may use for a mail to this domain.
    pub async fn enter(&self, tenant: TenantId, domain: &str) -> Result<Pass, Busy> {
        let way = (tenant, domain.to_ascii_lowercase());
        self.pass_the_brake(&way)?;
        let share = self.share(tenant);
        let both =
            async { Some((share.acquire_owned().await.ok()?, Arc::clone(&self.all).acquire_owned().await.ok()?)) };
        match timeout(PATIENCE, both).await {
            Ok(Some(permits)) => Ok(Pass { way, _permits: permits }),
            Ok(None) | Err(_) => Err(Busy { retry_in: PATIENCE }),
        }
    }

    /// Records that the mail was answered, whether accepted or refused.
    pub fn replied(&self, pass: &Pass) {
        locked(&self.hanging).remove(&pass.way);
    }

    /// Records that the mail reached its deadline.
    pub fn hung(&self, pass: &Pass) {
        let mut hanging = locked(&self.hanging);
        if hanging.len() >= REMEMBERED {
            hanging.clear();
        }
        let entry = hanging.entry(pass.way.clone()).or_insert(Hanging { in_a_row: 0, next: Instant::now() });
        entry.in_a_row = entry.in_a_row.saturating_add(1);
        if entry.in_a_row >= HANGS {
            entry.next = Instant::now() + self.brake(entry.in_a_row);
        }
    }

    fn pass_the_brake(&self, way: &Way) -> Result<(), Busy> {
        let mut hanging = locked(&self.hanging);
        let Some(entry) = hanging.get_mut(way).filter(|entry| entry.in_a_row >= HANGS) else { return Ok(()) };
        let now = Instant::now();
        if now < entry.next {
            return Err(Busy { retry_in: entry.next - now });
        }
        // This mail tries the domain; the others wait for its result.
        entry.next = now + self.brake(entry.in_a_row);
        Ok(())
    }

    fn brake(&self, in_a_row: u32) -> Duration {
        let doublings = in_a_row.saturating_sub(HANGS).min(16);
        self.pause.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_BRAKE.max(self.pause))
    }

    fn share(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = locked(&self.tenants);
        if tenants.len() >= REMEMBERED {
            tenants.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(self.per_tenant))))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn one_tenant_leaves_a_connection_to_the_others() {
        let shares = Shares::new(4, Duration::from_secs(15));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(shares.enter(tenant(1), "a.test").await.expect("free"));
        }
        assert!(shares.enter(tenant(1), "b.test").await.is_err());
        held.push(shares.enter(tenant(2), "a.test").await.expect("the last one"));
        assert!(shares.enter(tenant(3), "a.test").await.is_err());
        held.clear();
        assert!(shares.enter(tenant(1), "b.test").await.is_ok());
    }

    #[tokio::test]
    async fn a_hanging_domain_is_retried_at_intervals() {
        let pause = Duration::from_millis(300);
        let shares = Shares::new(4, pause);
        let pass = shares.enter(tenant(1), "Stuck.test").await.expect("free");
        shares.hung(&pass);
        assert!(shares.enter(tenant(1), "stuck.test").await.is_ok(), "once is no pattern");
        shares.hung(&pass);
        let busy = shares.enter(tenant(1), "stuck.test").await.expect_err("braked");
        assert!(busy.retry_in <= pause, "{busy:?}");
        assert!(shares.enter(tenant(1), "other.test").await.is_ok());
        assert!(shares.enter(tenant(2), "stuck.test").await.is_ok());
        tokio::time::sleep(busy.retry_in).await;
        assert!(shares.enter(tenant(1), "stuck.test").await.is_ok(), "one looks");
        assert!(shares.enter(tenant(1), "stuck.test").await.is_err(), "the others wait");
        shares.hung(&pass);
        let busy = shares.enter(tenant(1), "stuck.test").await.expect_err("braked for longer");
        assert!(busy.retry_in > pause && busy.retry_in <= 2 * pause, "{busy:?}");
        shares.replied(&pass);
        assert!(shares.enter(tenant(1), "stuck.test").await.is_ok());
    }
}
