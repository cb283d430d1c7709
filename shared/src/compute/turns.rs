//! Round-robin scheduling of computations: one queue per tenant.
//!
//! Invariant: a tenant has at most `share` computations running and at most `max_waiting` waiting.
//! A tenant is in `ready` exactly if it has a waiting computation and is below its share.

use std::collections::{HashMap, VecDeque};

use crate::tenancy::TenantId;

pub(super) struct Turns<T> {
    flows: HashMap<TenantId, Flow<T>>,
    ready: VecDeque<TenantId>,
    share: usize,
    max_waiting: usize,
}

struct Flow<T> {
    waiting: VecDeque<T>,
    running: usize,
    is_ready: bool,
}

impl<T> Turns<T> {
    pub fn new(share: usize, max_waiting: usize) -> Self {
        Self { flows: HashMap::new(), ready: VecDeque::new(), share, max_waiting }
    }

    /// Appends to the tenant's queue; returns false if the queue is full.
    pub fn push(&mut self, tenant: TenantId, computation: T) -> bool {
        let flow =
            self.flows.entry(tenant).or_insert_with(|| Flow { waiting: VecDeque::new(), running: 0, is_ready: false });
        if flow.waiting.len() >= self.max_waiting {
            return false;
        }
        flow.waiting.push_back(computation);
        self.update(tenant);
        true
    }

    /// The next computation of the tenant whose turn it is. The caller must call [`Self::finish`]
    /// afterwards.
    pub fn take(&mut self) -> Option<(TenantId, T)> {
        let tenant = self.ready.pop_front()?;
        let flow = self.flows.get_mut(&tenant)?;
        flow.is_ready = false;
        let computation = flow.waiting.pop_front()?;
        flow.running += 1;
        self.update(tenant);
        Some((tenant, computation))
    }

    /// Ends one running computation of the tenant.
    pub fn finish(&mut self, tenant: TenantId) {
        if let Some(flow) = self.flows.get_mut(&tenant) {
            flow.running -= 1;
            self.update(tenant);
        }
    }

    pub fn waiting(&self) -> usize {
        self.flows.values().map(|flow| flow.waiting.len()).sum()
    }

    fn update(&mut self, tenant: TenantId) {
        let Some(flow) = self.flows.get_mut(&tenant) else { return };
        if flow.waiting.is_empty() && flow.running == 0 {
            self.flows.remove(&tenant);
        } else if !flow.waiting.is_empty() && flow.running < self.share && !flow.is_ready {
            flow.is_ready = true;
            self.ready.push_back(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: TenantId = TenantId::new(Uuid::from_u128(1));
    const B: TenantId = TenantId::new(Uuid::from_u128(2));

    #[test]
    fn tenants_take_turns_within_their_shares() {
        let mut turns = Turns::new(2, 100);
        for number in 0..10 {
            assert!(turns.push(A, number));
        }
        assert!(turns.push(B, 100));
        assert_eq!(turns.take(), Some((A, 0)));
        assert_eq!(turns.take(), Some((B, 100)), "A's nine other computations do not run before B's");
        assert_eq!(turns.take(), Some((A, 1)));
        assert_eq!(turns.take(), None, "A's share is used");
        turns.finish(A);
        assert_eq!(turns.take(), Some((A, 2)));
        assert_eq!(turns.waiting(), 7);
    }

    #[test]
    fn a_full_queue_refuses_only_its_own_tenant() {
        let mut turns = Turns::new(1, 2);
        assert!(turns.push(A, 1) && turns.push(A, 2) && !turns.push(A, 3));
        assert!(turns.push(B, 1));
        assert_eq!(turns.take(), Some((A, 1)));
        assert!(turns.push(A, 4), "the running one does not count as waiting");
        assert!(!turns.push(A, 5));
    }

    #[test]
    fn a_finished_tenant_leaves_no_entry() {
        let mut turns = Turns::new(1, 2);
        turns.push(A, 1);
        turns.take();
        turns.finish(A);
        assert!(turns.flows.is_empty() && turns.ready.is_empty());
        assert_eq!(turns.take(), None);
    }
}
