//! Names of all Redis keys and channels. The keys of a shard share the hash tag `{queue}`, or
//! `{queue/0.4}` if the queue is split, and hence a slot of a Redis Cluster.

use uuid::Uuid;

use crate::queue::{QueueName, Shard};

/// The root from which the scripts derive all keys of a shard.
pub fn root(prefix: &str, shard: &Shard) -> String {
    format!("{prefix}:{{{shard}}}")
}

/// The shard count that the leader recorded for a queue: see [`crate::queue::repair::reconcile`].
pub fn built_shards(prefix: &str, queue: &QueueName) -> String {
    format!("{prefix}:{{{queue}}}:shards")
}

/// Channel that notifies idle workers of work in a shard.
pub fn wake_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:wake", root(prefix, shard))
}

/// Channel through which a worker receives direct dispatches from a shard: see `Subscription`.
pub fn dispatch_channel(prefix: &str, shard: &Shard, subscription: &str) -> String {
    format!("{}:dispatched:{subscription}", root(prefix, shard))
}

/// Channel that notifies holders of a shard's leases of cancelled jobs; a message is 16 bytes of
/// id, then the attempt as text.
pub fn cancel_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:cancel", root(prefix, shard))
}

/// Channel that notifies followers of a shard's jobs of changes: see `JobChange`.
pub fn events_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:events", root(prefix, shard))
}

/// Marks that an effect of a job happened, until the ledger records it: see [`crate::queue::complete::effects`].
pub fn effect_mark(prefix: &str, effect: &str) -> String {
    format!("{prefix}:effect:{effect}")
}

/// Time of the first try of an effect. Separate from the mark, because workers of the previous
/// release treat any mark as an effect that happened.
pub fn effect_begun(prefix: &str, effect: &str) -> String {
    format!("{prefix}:effect-begun:{effect}")
}

/// Count of requests under a policy: see [`crate::rate_limit`]. The counts of one subject, a tenant
/// or a client's network, share a slot of a Redis Cluster.
pub fn rate_limit(prefix: &str, subject: &str, policy: &str) -> String {
    format!("{prefix}:rate:{{{subject}}}:{policy}")
}

/// The running APIs: see [`crate::rate_limit`].
pub fn apis(prefix: &str) -> String {
    format!("{prefix}:apis")
}

/// Key written to test whether Redis accepts writes, and a channel of the same name: see
/// `Index::fitness`.
pub fn probe(prefix: &str) -> String {
    format!("{prefix}:probe")
}

/// Progress reported by a run: see [`crate::queue::observe::progress`].
pub fn progress(prefix: &str, job: Uuid) -> String {
    format!("{prefix}:progress:{job}")
}
