//! Hearing from the index instead of asking it: wake-ups of idle workers, cancellations of running jobs, and what happens to
//! jobs that somebody follows.
//!
//! Invariant: a notice is a hint. Losing one (a broken connection, a restart) costs time, never a job: workers poll as well,
//! and a finish of a cancelled job is refused by the ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _};
use redis::{
    Msg, RedisError,
    aio::{PubSubSink, PubSubStream},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Grant, Index, JobChange, QueueName, Shard, keys};

const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long Redis is waited for at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There may be work in this shard.
    Wake(Shard),
    /// A tenant has work in this shard that had none, while the shard is busy with others'.
    Newcomer(Shard),
    /// A job of this shard was leased to this worker, which had offered to take one.
    Granted(Shard, Grant),
    /// This job was cancelled, and its runs up to this attempt are not wanted any more.
    Cancelled(Uuid, i32),
    /// This happened to a followed job.
    Changed(Uuid, JobChange),
    /// The connection is new: anything may have been missed.
    Connected,
}

/// Where grants reach a worker: its process, by the connection that it has now. Cheap to clone.
///
/// Invariant: no connection has the name of an earlier one, also not after a restart of Redis, so an offer that bears the name is void
/// as soon as nobody can hear of it.
#[derive(Clone, Debug)]
pub struct Subscription {
    process: Uuid,
    /// Counts the connections; 0 while there is none.
    connection: Arc<AtomicU32>,
}

impl Subscription {
    /// What the channels are named by, while somebody listens.
    pub(super) fn name(&self) -> Option<String> {
        match self.connection.load(Ordering::Acquire) {
            0 => None,
            connection => Some(self.name_of(connection)),
        }
    }

    fn name_of(&self, connection: u32) -> String {
        format!("{}:{connection}", self.process.simple())
    }
}

/// Notices as they come; reconnects by itself until the token is cancelled.
pub struct Notices {
    index: Index,
    channels: HashMap<String, Channel>,
    /// Where grants are heard, of which shards.
    grants: Option<(Subscription, Vec<Shard>)>,
    /// How many connections were tried.
    connections: u32,
    /// `None` while there is no connection.
    connection: Option<(PubSubSink, PubSubStream)>,
    stop: CancellationToken,
}

impl Notices {
    /// Listens as the worker `process` of these shards: wake-ups, cancellations, and grants by the subscription that is returned.
    pub fn listen(index: &Index, shards: Vec<Shard>, process: Uuid, stop: CancellationToken) -> (Self, Subscription) {
        let mut channels = HashMap::new();
        for shard in &shards {
            channels.insert(keys::cancel_channel(index.prefix(), shard), Channel::Cancel);
            channels.insert(keys::wake_channel(index.prefix(), shard), Channel::Wake(shard.clone()));
        }
        let subscription = Subscription { process, connection: Arc::default() };
        let grants = Some((subscription.clone(), shards));
        (Self { grants, ..Self::of(index, channels, stop) }, subscription)
    }

    /// Listens to what happens to jobs of these queues that are followed by [`Index::watch`], whoever follows them.
    pub fn watch(index: &Index, queues: &[QueueName], stop: CancellationToken) -> Self {
        let channel = |shard| (keys::events_channel(index.prefix(), &shard), Channel::Events);
        let shards = queues.iter().flat_map(|queue| index.shards(queue));
        Self::of(index, shards.map(channel).collect(), stop)
    }

    fn of(index: &Index, channels: HashMap<String, Channel>, stop: CancellationToken) -> Self {
        Self { index: index.clone(), channels, grants: None, connections: 0, connection: None, stop }
    }

    /// The next notice; `None` after the token was cancelled, and nothing can be granted any more. To be asked again at once: what comes
    /// meanwhile is kept in memory.
    pub async fn next(&mut self) -> Option<Notice> {
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.heard()).await {
            Some(notice) => Some(notice),
            None => self.last().await,
        }
    }

    /// Grants that had come when nobody could grant anything more: a worker that leaves may still be reserved, for the rest of a commit.
    async fn last(&mut self) -> Option<Notice> {
        let (sink, messages) = self.connection.as_mut()?;
        if self.grants.take().is_some() {
            let granted = self.channels.iter().filter(|(_, channel)| matches!(channel, Channel::Granted(_)));
            let unsubscribing = async {
                for (name, _) in granted {
                    sink.unsubscribe(name).await?;
                }
                Ok::<_, RedisError>(())
            };
            // Without an answer the connection is gone, and what is granted over it is heard by nobody.
            let _ = timeout(LAST_PATIENCE, unsubscribing).await;
        }
        while let Some(message) = messages.next().now_or_never()? {
            if let Some(granted @ Notice::Granted(..)) = notice(&self.channels, &message) {
                return Some(granted);
            }
        }
        None
    }

    async fn heard(&mut self) -> Notice {
        loop {
            let Some((_, messages)) = &mut self.connection else {
                match self.connect().await {
                    Ok(()) => return Notice::Connected,
                    Err(error) => tracing::debug!(%error, "not hearing from the index"),
                }
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            let Some(message) = messages.next().await else {
                self.connection = None;
                if let Some((subscription, _)) = &self.grants {
                    subscription.connection.store(0, Ordering::Release);
                }
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            if let Some(notice) = notice(&self.channels, &message) {
                return notice;
            }
        }
    }

    async fn connect(&mut self) -> Result<(), RedisError> {
        self.connections += 1;
        if let Some((subscription, shards)) = &self.grants {
            let name = subscription.name_of(self.connections);
            self.channels.retain(|_, channel| !matches!(channel, Channel::Granted(_)));
            self.channels.extend(shards.iter().map(|shard| {
                (keys::granted_channel(self.index.prefix(), shard, &name), Channel::Granted(shard.clone()))
            }));
        }
        self.connection = Some(subscribe(&self.index, self.channels.keys()).await?);
        if let Some((subscription, _)) = &self.grants {
            subscription.connection.store(self.connections, Ordering::Release);
        }
        Ok(())
    }
}

enum Channel {
    Wake(Shard),
    Granted(Shard),
    Cancel,
    Events,
}

impl Channel {
    fn notice(&self, message: &[u8]) -> Option<Notice> {
        match self {
            Self::Wake(shard) if message.is_empty() => Some(Notice::Wake(shard.clone())),
            Self::Wake(shard) => Some(Notice::Newcomer(shard.clone())),
            Self::Granted(shard) => Grant::parse(message).map(|grant| Notice::Granted(shard.clone(), grant)),
            Self::Cancel => cancelled(message),
            Self::Events => JobChange::parse(message).map(|(id, change)| Notice::Changed(id, change)),
        }
    }
}

/// The id's 16 bytes, then the attempt as text.
fn cancelled(message: &[u8]) -> Option<Notice> {
    let (id, attempt) = message.split_at_checked(16)?;
    let attempt = std::str::from_utf8(attempt).ok()?.parse().ok()?;
    Some(Notice::Cancelled(Uuid::from_slice(id).ok()?, attempt))
}

fn notice(channels: &HashMap<String, Channel>, message: &Msg) -> Option<Notice> {
    channels.get(message.get_channel_name())?.notice(message.get_payload_bytes())
}

async fn subscribe(
    index: &Index,
    channels: impl Iterator<Item = &String>,
) -> Result<(PubSubSink, PubSubStream), RedisError> {
    let mut subscription = index.client().get_async_pubsub().await?;
    for channel in channels {
        subscription.subscribe(channel).await?;
    }
    Ok(subscription.split())
}
