//! A queue of items that are processed in batches, served round-robin by tenant.
//!
//! Invariant: a batch is divided evenly, by count and by weight, among the tenants that have items
//! waiting, so an item's wait depends on the number of other tenants, not on how much those have
//! waiting. In a bounded queue a tenant never holds more items than there is room left (dynamic
//! thresholds, Choudhury and Hahne 1998), so room remains for the other tenants.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt as _};

use crate::tenancy::TenantId;

/// Waiting items, by tenant.
#[derive(Debug)]
pub struct FairQueue<T> {
    lines: HashMap<TenantId, VecDeque<(usize, T)>>,
    /// The tenants in `lines`, in round-robin order.
    turns: VecDeque<TenantId>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Number of waiting items.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no item is waiting.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of waiting items of one tenant.
    pub fn len_of(&self, tenant: TenantId) -> usize {
        self.lines.get(&tenant).map_or(0, VecDeque::len)
    }

    /// Appends an item to the tenant's line. `weight` has the unit of `most_weight` in
    /// [`Self::take`].
    pub fn push(&mut self, tenant: TenantId, weight: usize, item: T) {
        let turns = &mut self.turns;
        let line = self.lines.entry(tenant).or_insert_with(|| {
            turns.push_back(tenant);
            VecDeque::new()
        });
        line.push_back((weight, item));
        self.len += 1;
    }

    /// Like [`Self::push`], but returns the item if the tenant already has at least as many items
    /// waiting as there is room left out of `most` for all tenants.
    pub fn push_bounded(&mut self, most: usize, tenant: TenantId, weight: usize, item: T) -> Result<(), T> {
        if self.len_of(tenant) >= most.saturating_sub(self.len) {
            return Err(item);
        }
        self.push(tenant, weight, item);
        Ok(())
    }

    /// Takes an even part of each tenant's line, up to `most` items; parts that some tenants do not
    /// use are divided again among the others. The last item may exceed `most_weight`, so that an
    /// item heavier than `most_weight` is taken too.
    pub fn take(&mut self, most: usize, most_weight: usize) -> Vec<T> {
        let (mut batch, mut weight) = (Vec::with_capacity(most.min(self.len)), 0);
        while batch.len() < most && weight < most_weight && !self.turns.is_empty() {
            let tenants = self.turns.len();
            let part = ((most - batch.len()) / tenants).max(1);
            let part_weight = (most_weight - weight) / tenants;
            for _ in 0..tenants {
                if batch.len() >= most || weight >= most_weight {
                    break;
                }
                weight += self.take_from_next(part, part_weight, &mut batch);
            }
        }
        batch
    }

    /// Takes up to `most` items of the next tenant for which `may_have_turn` is true, with the same
    /// bounds.
    pub fn take_of_one(
        &mut self,
        most: usize,
        most_weight: usize,
        may_have_turn: impl Fn(TenantId) -> bool,
    ) -> Option<(TenantId, Vec<T>)> {
        let at = self.turns.iter().position(|&tenant| may_have_turn(tenant))?;
        let tenant = self.turns.remove(at)?;
        self.turns.push_front(tenant);
        let mut batch = Vec::new();
        self.take_from_next(most, most_weight, &mut batch);
        Some((tenant, batch))
    }

    /// Takes at least one item of the tenant whose turn it is and moves the tenant behind the
    /// others. Returns the weight of the items taken.
    fn take_from_next(&mut self, most: usize, most_weight: usize, batch: &mut Vec<T>) -> usize {
        let Some(tenant) = self.turns.pop_front() else { return 0 };
        let Some(line) = self.lines.get_mut(&tenant) else { return 0 };
        let (mut taken, mut weight) = (0, 0);
        while taken < most
            && (taken == 0 || weight < most_weight)
            && let Some((its_weight, item)) = line.pop_front()
        {
            (taken, weight) = (taken + 1, weight + its_weight);
            batch.push(item);
        }
        self.len -= taken;
        if line.is_empty() {
            self.lines.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        weight
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ANY_WEIGHT: usize = usize::MAX;

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    /// Adds items whose value is the number of their tenant.
    fn push(queue: &mut FairQueue<u128>, number: u128, count: usize, weight: usize) {
        for _ in 0..count {
            queue.push(tenant(number), weight, number);
        }
    }

    fn of(batch: &[u128], number: u128) -> usize {
        batch.iter().filter(|&&other| other == number).count()
    }

    #[test]
    fn a_lone_tenant_fills_batches() {
        let mut queue = FairQueue::default();
        push(&mut queue, 1, 1_200, 0);
        let sizes: Vec<usize> = (0..4).map(|_| queue.take(500, ANY_WEIGHT).len()).collect();
        assert_eq!(sizes, [500, 500, 200, 0]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_items_of_a_quiet_tenant_are_in_the_next_batch() {
        let mut queue = FairQueue::default();
        push(&mut queue, 1, 5_000, 0);
        push(&mut queue, 2, 3, 0);
        push(&mut queue, 3, 1_000, 0);
        let batch = queue.take(500, ANY_WEIGHT);
        assert_eq!((of(&batch, 2), batch.len()), (3, 500));
        assert!(of(&batch, 1).abs_diff(of(&batch, 3)) <= 3, "{} and {}", of(&batch, 1), of(&batch, 3));
    }

    /// A tenant with heavy items gets fewer of them into a batch; the batch does not become
    /// heavier.
    #[test]
    fn the_weight_of_a_batch_is_shared_fairly() {
        let mut queue = FairQueue::default();
        push(&mut queue, 1, 100, 64);
        push(&mut queue, 2, 100, 1);
        let batch = queue.take(500, 512);
        assert_eq!(of(&batch, 2), 100);
        assert!((4..=9).contains(&of(&batch, 1)), "{}", of(&batch, 1));
        push(&mut queue, 3, 1, 10_000);
        let mut batches = std::iter::from_fn(|| Some(queue.take(500, 512)));
        assert!(batches.by_ref().take(20).any(|batch| of(&batch, 3) == 1), "an item heavier than a batch is taken too");
    }

    #[test]
    fn many_tenants_with_heavy_items_take_turns_in_several_batches() {
        let mut queue = FairQueue::default();
        for number in 0..10 {
            push(&mut queue, number, 2, 100);
        }
        let batches: Vec<Vec<u128>> = (0..10).map(|_| queue.take(500, 200)).collect();
        assert_eq!(batches[..5].concat(), (0..10).collect::<Vec<_>>());
        assert_eq!(batches.concat().len(), 20);
    }

    #[test]
    fn an_ineligible_tenant_is_skipped_and_keeps_its_turn() {
        let mut queue = FairQueue::default();
        push(&mut queue, 1, 2, 0);
        push(&mut queue, 2, 1, 0);
        assert_eq!(queue.take_of_one(1, ANY_WEIGHT, |_| false), None);
        assert_eq!(queue.take_of_one(1, ANY_WEIGHT, |other| other == tenant(2)), Some((tenant(2), vec![2])));
        assert_eq!(queue.take_of_one(1, ANY_WEIGHT, |_| true), Some((tenant(1), vec![1])));
        assert_eq!(queue.len_of(tenant(1)), 1);
    }

    #[test]
    fn a_tenant_fills_half_of_the_remaining_capacity() {
        let mut queue = FairQueue::default();
        let mut fill =
            |number| (0..100).take_while(|_| queue.push_bounded(100, tenant(number), 0, number).is_ok()).count();
        assert_eq!((fill(1), fill(2), fill(3)), (50, 25, 13));
    }
}
