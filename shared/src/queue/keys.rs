//! Every name in Redis. A queue's keys share the hash tag `{queue}`, hence the slot of a Redis Cluster.

use uuid::Uuid;

use super::QueueName;

/// The root from which the scripts derive all keys of a queue.
pub fn root(prefix: &str, queue: &QueueName) -> String {
    format!("{prefix}:{{{queue}}}")
}

/// Where idle workers of a queue hear that there is something to fetch.
pub fn wake_channel(prefix: &str, queue: &QueueName) -> String {
    format!("{}:wake", root(prefix, queue))
}

/// Where holders of a queue's leases hear that a running job was cancelled; the message is the id's 16 bytes.
pub fn cancel_channel(prefix: &str, queue: &QueueName) -> String {
    format!("{}:cancel", root(prefix, queue))
}

/// Where those who follow jobs of a queue hear what happens to them: see `JobChange`.
pub fn events_channel(prefix: &str, queue: &QueueName) -> String {
    format!("{}:events", root(prefix, queue))
}

/// Notes that an effect of a job happened, until the ledger says so: see `jobs::effects`.
pub fn effect_mark(prefix: &str, effect: &str) -> String {
    format!("{prefix}:effect:{effect}")
}

/// How far a run says that it is: see [`super::progress`].
pub fn progress(prefix: &str, job: Uuid) -> String {
    format!("{prefix}:progress:{job}")
}
