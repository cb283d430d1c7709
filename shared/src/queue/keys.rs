//! Every name in Redis. A shard's keys share the hash tag `{queue}`, of a queue that is split `{queue/0.4}` and so on, hence the slot
//! of a Redis Cluster.

use uuid::Uuid;

use super::{QueueName, Shard};

/// The root from which the scripts derive all keys of a shard.
pub fn root(prefix: &str, shard: &Shard) -> String {
    format!("{prefix}:{{{shard}}}")
}

/// Into how many shards the leader has split a queue: see [`super::reconcile`].
pub fn built_shards(prefix: &str, queue: &QueueName) -> String {
    format!("{prefix}:{{{queue}}}:shards")
}

/// Where idle workers hear that there is something to fetch from a shard.
pub fn wake_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:wake", root(prefix, shard))
}

/// Where a worker hears what was leased to it from a shard because it had offered to take it: see `Subscription`.
pub fn granted_channel(prefix: &str, shard: &Shard, subscription: &str) -> String {
    format!("{}:granted:{subscription}", root(prefix, shard))
}

/// Where holders of a shard's leases hear that a running job was cancelled; the message is the id's 16 bytes.
pub fn cancel_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:cancel", root(prefix, shard))
}

/// Where those who follow jobs of a shard hear what happens to them: see `JobChange`.
pub fn events_channel(prefix: &str, shard: &Shard) -> String {
    format!("{}:events", root(prefix, shard))
}

/// Notes that an effect of a job happened, until the ledger says so: see `jobs::effects`.
pub fn effect_mark(prefix: &str, effect: &str) -> String {
    format!("{prefix}:effect:{effect}")
}

/// When an effect was first tried. Another key than the mark: workers of the release before take any mark for an effect.
pub fn effect_begun(prefix: &str, effect: &str) -> String {
    format!("{prefix}:effect-begun:{effect}")
}

/// Written to see whether it can be, and a channel of the same name: see `Index::fitness`.
pub fn probe(prefix: &str) -> String {
    format!("{prefix}:probe")
}

/// How far a run says that it is: see [`super::progress`].
pub fn progress(prefix: &str, job: Uuid) -> String {
    format!("{prefix}:progress:{job}")
}
