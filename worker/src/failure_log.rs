//! Log lines of failed runs, a few a second: jobs that fail at once would otherwise have all of them written, by threads that all tenants share.
//!
//! Invariant: no tenant's failures use up the lines of another's. What is left out is counted in a line of its own; every failure is in the
//! ledger and in `rota_jobs_total`.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::tenancy::TenantId;

/// Lines are counted over this time.
const SPAN: Duration = Duration::from_secs(1);
/// Lines of one tenant in that time.
const OF_A_TENANT: u32 = 5;
/// Lines in that time.
const OF_ALL: u32 = 50;

static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(|| Mutex::new(Lines::new(Instant::now())));

struct Lines {
    since: Instant,
    written: u32,
    of_tenants: HashMap<TenantId, u32>,
    left_out: u64,
}

/// Logs that a run of this tenant failed, within the span of its job.
pub fn failed(tenant: TenantId, class: &str) {
    let (may_write, left_out) = {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = lines.begin(Instant::now());
        (lines.take(tenant), left_out)
    };
    if left_out > 0 {
        tracing::info!(left_out, "more runs failed than are logged");
    }
    if may_write {
        tracing::info!(class, "the job failed");
    }
}

impl Lines {
    fn new(since: Instant) -> Self {
        Self { since, written: 0, of_tenants: HashMap::new(), left_out: 0 }
    }

    /// Begins a new span if the last one is over; returns how many lines that one left out.
    fn begin(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.since) < SPAN {
            return 0;
        }
        std::mem::replace(self, Self::new(now)).left_out
    }

    fn take(&mut self, tenant: TenantId) -> bool {
        // No more entries than lines.
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
    fn one_tenant_leaves_lines_to_the_others_until_the_span_is_over() {
        let began = Instant::now();
        let mut lines = Lines::new(began);
        let written = (0..1_000).filter(|_| lines.take(tenant(1))).count();
        assert_eq!(written, 5);
        assert!(lines.take(tenant(2)));
        assert_eq!(lines.begin(began + SPAN / 2), 0, "the span goes on");
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
