//! Counts per tenant and in total, each with a limit.
//!
//! Invariant: the total is the sum of the tenants' counts, and a tenant whose count is 0 takes no
//! memory. The owner of the counts subtracts on drop what it added.

use std::collections::HashMap;

use shared::tenancy::TenantId;

/// The counts.
#[derive(Debug, Default)]
pub struct TenantCounts {
    by_tenant: HashMap<TenantId, usize>,
    total: usize,
}

/// The limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The limit per tenant.
    Tenant,
    /// The limit of the process.
    Process,
}

impl TenantCounts {
    /// Adds to a tenant's count, unless that would exceed a limit.
    pub fn add_within(
        &mut self,
        tenant: TenantId,
        amount: usize,
        per_tenant: usize,
        per_process: usize,
    ) -> Result<(), Full> {
        if self.of(tenant) + amount > per_tenant {
            return Err(Full::Tenant);
        }
        if self.total + amount > per_process {
            return Err(Full::Process);
        }
        self.add(tenant, amount);
        Ok(())
    }

    /// Adds to a tenant's count, whatever the limits are.
    pub fn add(&mut self, tenant: TenantId, amount: usize) {
        if amount == 0 {
            return;
        }
        *self.by_tenant.entry(tenant).or_default() += amount;
        self.total += amount;
    }

    /// Subtracts what was added before.
    pub fn remove(&mut self, tenant: TenantId, amount: usize) {
        self.total -= amount;
        if let Some(own) = self.by_tenant.get_mut(&tenant) {
            *own -= amount;
            if *own == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }

    /// The count of all tenants.
    pub const fn total(&self) -> usize {
        self.total
    }

    fn of(&self, tenant: TenantId) -> usize {
        self.by_tenant.get(&tenant).copied().unwrap_or(0)
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
    fn both_limits_hold_on_both_sides() {
        let mut counts = TenantCounts::default();
        assert_eq!(counts.add_within(tenant(1), 10, 10, 15), Ok(()));
        assert_eq!(counts.add_within(tenant(1), 1, 10, 15), Err(Full::Tenant));
        assert_eq!(counts.add_within(tenant(2), 5, 10, 15), Ok(()));
        assert_eq!(counts.add_within(tenant(2), 1, 10, 15), Err(Full::Process));
        counts.remove(tenant(1), 10);
        assert_eq!(counts.add_within(tenant(2), 5, 10, 15), Ok(()));
    }

    #[test]
    fn a_tenant_without_a_count_takes_no_memory() {
        let mut counts = TenantCounts::default();
        counts.add(tenant(1), 0);
        counts.add(tenant(2), 3);
        counts.remove(tenant(2), 3);
        assert!(counts.by_tenant.is_empty() && counts.total() == 0);
    }
}
