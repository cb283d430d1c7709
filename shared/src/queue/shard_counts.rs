//! Number of shards per queue.
//!
//! Invariant: every count is from 1 to [`MAX_SHARDS`], and a queue has one count. All processes of
//! an installation must have the same configuration; `shard_agreement.rs` logs differences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use crate::queue::{QueueName, Shard, job::InvalidQueueName};
use crate::tenancy::TenantId;

/// Maximum number of shards. Each shard costs an idle worker one call per poll, and a worker that
/// serves it a queue share in each round.
pub const MAX_SHARDS: u16 = 64;

/// Shard counts by queue; a queue without an entry is not split. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ShardCounts(Arc<BTreeMap<QueueName, u16>>);

/// Invalid `ROTA_QUEUE_SHARDS`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidShardCounts {
    /// Not `QUEUE:COUNT`.
    #[error("entry {0}, {1:?}, is not QUEUE:COUNT")]
    Form(usize, String),
    /// The part before the colon is not a valid queue name.
    #[error("entry {0}: {1}")]
    Queue(usize, InvalidQueueName),
    /// The part after the colon is not a valid count.
    #[error("entry {0}, {1:?}: the count is not a whole number from 1 to {MAX_SHARDS}")]
    Count(usize, String),
    /// A queue with two counts.
    #[error("entry {0}: the queue {1} is listed twice")]
    Doubled(usize, QueueName),
}

/// A shard count for a queue that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("ROTA_QUEUE_SHARDS: unknown queue {queue:?}; known queues: {known}")]
pub struct UnknownQueue {
    queue: String,
    known: String,
}

impl ShardCounts {
    /// Number of shards of a queue.
    pub fn of(&self, queue: &QueueName) -> u16 {
        self.0.get(queue).copied().unwrap_or(1)
    }

    /// All shards of a queue.
    pub fn shards(&self, queue: &QueueName) -> impl Iterator<Item = Shard> + use<> {
        Shard::all(queue, self.of(queue))
    }

    /// The shard of a tenant's jobs.
    pub fn shard_of(&self, queue: &QueueName, tenant: TenantId) -> Shard {
        Shard::of_tenant(queue, self.of(queue), tenant)
    }

    /// Refuses a name that is not among `queues`, which is probably misspelled.
    pub fn require_known(&self, queues: &BTreeSet<QueueName>) -> Result<(), UnknownQueue> {
        let Some(unknown) = self.0.keys().find(|queue| !queues.contains(*queue)) else { return Ok(()) };
        let known: Vec<&str> = queues.iter().map(AsRef::as_ref).collect();
        Err(UnknownQueue { queue: unknown.to_string(), known: known.join(", ") })
    }
}

/// `email:4,default:2`; an empty text splits no queue.
impl FromStr for ShardCounts {
    type Err = InvalidShardCounts;

    fn from_str(text: &str) -> Result<Self, InvalidShardCounts> {
        let mut counts = BTreeMap::new();
        let entries = text.split(',').map(str::trim).enumerate().map(|(at, entry)| (at + 1, entry));
        for (at, entry) in entries.filter(|(_, entry)| !entry.is_empty()) {
            let (queue, count) = entry.split_once(':').ok_or_else(|| InvalidShardCounts::Form(at, entry.to_owned()))?;
            let queue: QueueName = queue.parse().map_err(|error| InvalidShardCounts::Queue(at, error))?;
            let count = count.parse().ok().filter(|count| (1..=MAX_SHARDS).contains(count));
            let count = count.ok_or_else(|| InvalidShardCounts::Count(at, entry.to_owned()))?;
            if counts.insert(queue.clone(), count).is_some() {
                return Err(InvalidShardCounts::Doubled(at, queue));
            }
        }
        Ok(Self(Arc::new(counts)))
    }
}

impl fmt::Debug for ShardCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(queue, count)| (queue.as_ref(), count))).finish()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn counts(text: &str) -> Result<ShardCounts, String> {
        text.parse().map_err(|error: InvalidShardCounts| error.to_string())
    }

    fn queue(name: &str) -> QueueName {
        name.parse().unwrap()
    }

    #[test]
    fn only_configured_queues_are_split() {
        let counts = counts(" email:4, default:1 ,campaigns:64,").unwrap();
        let of = |name| counts.of(&queue(name));
        assert_eq!([of("email"), of("default"), of("campaigns"), of("payments")], [4, 1, 64, 1]);
        assert_eq!(counts.shards(&queue("email")).count(), 4);
        assert_eq!(counts.shards(&queue("payments")).collect::<Vec<_>>(), [Shard::whole(queue("payments"))]);
        assert_eq!(counts.shard_of(&queue("default"), TenantId::new(Uuid::max())), Shard::whole(queue("default")));
        assert_eq!("".parse::<ShardCounts>().unwrap(), ShardCounts::default());
    }

    #[test]
    fn an_error_names_its_position() {
        for (text, told) in [
            ("email", r#"entry 1, "email", is not QUEUE:COUNT"#),
            (
                "email:4,Default:2",
                r#"entry 2: "Default" is not a valid queue name: 1 to 64 of a-z, 0-9, _ and -, starting with a letter"#,
            ),
            (":2", r#"entry 1: "" is not a valid queue name: 1 to 64 of a-z, 0-9, _ and -, starting with a letter"#),
            ("email:0", r#"entry 1, "email:0": the count is not a whole number from 1 to 64"#),
            ("email:65", r#"entry 1, "email:65": the count is not a whole number from 1 to 64"#),
            ("email:", r#"entry 1, "email:": the count is not a whole number from 1 to 64"#),
            ("email:2:3", r#"entry 1, "email:2:3": the count is not a whole number from 1 to 64"#),
            ("email:2, email:2", "entry 2: the queue email is listed twice"),
        ] {
            assert_eq!(counts(text).unwrap_err(), told);
        }
    }

    #[test]
    fn an_unknown_queue_is_refused_by_name() {
        let known = BTreeSet::from([queue("default"), queue("email")]);
        assert!(counts("email:4").unwrap().require_known(&known).is_ok());
        assert_eq!(
            counts("emial:4").unwrap().require_known(&known).unwrap_err().to_string(),
            r#"ROTA_QUEUE_SHARDS: unknown queue "emial"; known queues: default, email"#
        );
    }
}
