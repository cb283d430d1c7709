//! Limits the log lines of failed runs to a few per second: jobs that fail at once could otherwise
//! flood the log, from threads that all tenants share.
//!
//! Invariant: no tenant's failures use up the lines of another tenant. A separate line counts the
//! omitted lines; every failure is in the ledger and in `rota_jobs_total`.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::tenancy::TenantId;

/// Period over which lines are counted.
const SPAN: Duration = Duration::from_secs(1);
/// Most lines per tenant and period.
const OF_A_TENANT: u32 = 5;
/// Most lines per period.
const OF_ALL: u32 = 50;

static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(|| Mutex::new(Lines::new(Instant::now())));

struct Lines {
    since: Instant,
    written: u32,
    of_tenants: HashMap<TenantId, u32>,
    left_out: u64,
}

/// Logs the failure of a run of this tenant, within the span of its job.
pub fn failed(tenant: TenantId, class: &str) {
    let (may_write, left_out) = {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = lines.begin(Instant::now());
        (lines.take(tenant), left_out)
    };
    if left_out > 0 {
        tracing::info!(left_out, "some failed runs were not logged");
    }
    if may_write {
        tracing::info!(class, "job failed");
    }
}

impl Lines {
    fn new(since: Instant) -> Self {
        Self { since, written: 0, of_tenants: HashMap::new(), left_out: 0 }
    }

    /// Starts a new period if the current one is over; returns how many lines that period omitted.
    fn begin(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.since) < SPAN {
            return 0;
        }
        std::mem::replace(self, Self::new(now)).left_out
    }

    fn take(&mut self, tenant: TenantId) -> bool {
        // Entries are added only for written lines, so the map has at most as many entries as
        // lines.
        let of_tenant = self.of_tenants.get(&tenant).copied().unwrap_or(0);
        if self.written >= OF_ALL || of_tenant >= OF_A_TENANT {
            self.left_out += 1;
            return false;
        }
        self.written += 1;
        self.of_tenants.insert(tenant, of_tenant + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn one_tenant_leaves_log_lines_to_other_tenants() {
        let began = Instant::now();
        let mut lines = Lines::new(began);
        let written = (0..1_000).filter(|_| lines.take(tenant(1))).count();
        assert_eq!(written, 5);
        assert!(lines.take(tenant(2)));
        assert_eq!(lines.begin(began + SPAN / 2), 0, "the period is not over");
        assert!(!lines.take(tenant(1)));
        assert_eq!(lines.begin(began + SPAN), 996);
        assert!(lines.take(tenant(1)));
    }

    #[test]
    fn all_tenants_together_are_bounded() {
        let mut lines = Lines::new(Instant::now());
        let written = (0..1_000).filter(|number| lines.take(tenant(*number))).count();
        assert_eq!(written, 50);
        assert_eq!(lines.of_tenants.len(), 50);
    }
}
