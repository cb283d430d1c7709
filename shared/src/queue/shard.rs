//! A part of a queue: some of its tenants, with a root key, hence a slot, of its own.
//!
//! Invariant: every process computes the same shard for a tenant, so one script has all of the
//! tenant's order, caps, rates and counts. The number of shards is part of a shard's root key:
//! processes with different numbers never write to each other's shards.
//! Next: [`crate::queue::shard_counts`] for the number of shards, `reconcile/resharding.rs` for changing
//! it.

use std::fmt;

use uuid::Uuid;

use crate::queue::QueueName;
use crate::tenancy::TenantId;

/// One part of a queue; a queue that is not split has a single part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    queue: QueueName,
    number: u16,
    of: u16,
}

impl Shard {
    /// The only shard of a queue that is not split.
    pub const fn whole(queue: QueueName) -> Self {
        Self { queue, number: 0, of: 1 }
    }

    /// All shards of a queue that is split into `of`.
    pub(in crate::queue) fn all(queue: &QueueName, of: u16) -> impl Iterator<Item = Self> + use<> {
        let queue = queue.clone();
        (0..of).map(move |number| Self { queue: queue.clone(), number, of })
    }

    /// The shard of a tenant's jobs, in a queue that is split into `of`.
    pub(in crate::queue) fn of_tenant(queue: &QueueName, of: u16, tenant: TenantId) -> Self {
        Self { queue: queue.clone(), number: Self::number_of(tenant, of), of }
    }

    /// The queue of this shard.
    pub const fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Whether a tenant's jobs are in this shard.
    pub fn holds(&self, tenant: TenantId) -> bool {
        Self::number_of(tenant, self.of) == self.number
    }

    /// Number of the tenant's shard, from 0.
    pub(in crate::queue) fn number_of(tenant: TenantId, of: u16) -> u16 {
        if of == 1 {
            return 0;
        }
        u16::try_from(spread(tenant.as_uuid()) % u64::from(of)).expect("a remainder is less than its divisor")
    }
}

/// `email`, or `email/1.4` for the second of four: a queue name contains neither `/` nor `.`.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            1 => self.queue.fmt(f),
            of => write!(f, "{}/{}.{of}", self.queue, self.number),
        }
    }
}

/// FNV-1a over the 16 bytes, 64 bits wide, with the upper half folded into the lower, whose last
/// bits alone are poorly mixed. It must never change: a different hash would put tenants into
/// different shards.
fn spread(id: &Uuid) -> u64 {
    let hash = id
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> QueueName {
        "email".parse().unwrap()
    }

    fn tenant(id: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(id))
    }

    #[test]
    fn a_tenant_is_in_exactly_one_shard() {
        for of in [1, 2, 3, 64] {
            for id in 0..200 {
                let holding: Vec<Shard> = Shard::all(&queue(), of).filter(|shard| shard.holds(tenant(id))).collect();
                assert_eq!(holding, [Shard::of_tenant(&queue(), of, tenant(id))]);
            }
        }
    }

    /// Processes of different releases must agree as long as the index lives.
    #[test]
    fn the_hash_is_stable() {
        // The plain FNV-1a of 16 zero bytes is 0x88201fb960ff6465, by its definition.
        assert_eq!(spread(&Uuid::nil()), 0x8820_1fb9_60ff_6465 ^ 0x8820_1fb9);
        let numbers = [0, 1, 2, 3, u128::MAX].map(|id| Shard::number_of(tenant(id), 4));
        assert_eq!(numbers, [0, 3, 2, 1, 1]);
    }

    /// Consecutive ids, which differ in few bits, must not concentrate in few shards.
    #[test]
    fn tenants_are_spread_evenly_for_every_pattern_of_ids() {
        let counted: [fn(u128) -> u128; 3] =
            [|at| at, |at| at << 64, |at| (0x0197_0000_0000_7000 + at) << 64 | 0x8000_0000_0000_0000];
        for of in [2, 4, 7, 16, 64] {
            for make in counted {
                let mut tenants = vec![0_u32; usize::from(of)];
                for at in 0..u128::from(of) * 500 {
                    tenants[usize::from(Shard::number_of(tenant(make(at)), of))] += 1;
                }
                assert!(tenants.iter().all(|count| (350..=650).contains(count)), "{of}: {tenants:?}");
            }
        }
    }

    #[test]
    fn the_name_contains_number_and_count() {
        assert_eq!(Shard::whole(queue()).to_string(), "email");
        let names: Vec<String> = Shard::all(&queue(), 3).map(|shard| shard.to_string()).collect();
        assert_eq!(names, ["email/0.3", "email/1.3", "email/2.3"]);
    }
}
