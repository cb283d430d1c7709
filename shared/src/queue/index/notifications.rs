//! Notifications from the index: wake-ups of idle workers, direct dispatches, cancellations of
//! running jobs, and changes of followed jobs.
//!
//! Invariant: a notification is a hint. Losing one (a broken connection, a restart) costs time,
//! never a job: workers also poll, and the ledger refuses the finish of a cancelled job.

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

use super::{Index, announce::JobChange, dispatch::DirectDispatch, keys};
use crate::queue::{job::QueueName, shard::Shard};

const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long an ending worker waits for Redis to confirm that it has unsubscribed.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There may be work in this shard.
    Wake(Shard),
    /// A tenant became newly active in this shard while no worker was idle.
    NewlyActive(Shard),
    /// A job of this shard was leased to this worker by direct dispatch.
    Dispatched(Shard, DirectDispatch),
    /// This job was cancelled, with its runs up to this attempt.
    Cancelled(Uuid, i32),
    /// A followed job changed.
    Changed(Uuid, JobChange),
    /// A new connection is established; notifications may have been lost before.
    Connected,
}

/// Address of direct dispatches to a worker: its process and its current connection. Cheap to
/// clone.
///
/// Invariant: no connection reuses an earlier one's name, even after a restart of Redis, so a ready
/// mark with that name becomes void when its connection closes.
#[derive(Clone, Debug)]
pub struct Subscription {
    process: Uuid,
    /// Number of the current connection; 0 while there is none.
    connection: Arc<AtomicU32>,
}

impl Subscription {
    /// The current connection's part of the channel names; `None` while there is none.
    pub(in crate::queue) fn name(&self) -> Option<String> {
        match self.connection.load(Ordering::Acquire) {
            0 => None,
            connection => Some(self.name_of(connection)),
        }
    }

    fn name_of(&self, connection: u32) -> String {
        format!("{}:{connection}", self.process.simple())
    }
}

/// A stream of notifications; reconnects automatically until the token is cancelled.
pub struct Notices {
    index: Index,
    channels: HashMap<String, Channel>,
    /// The subscription to direct dispatches, and its shards.
    dispatches: Option<(Subscription, Vec<Shard>)>,
    /// Connections attempted so far.
    connections: u32,
    /// `None` while disconnected.
    connection: Option<(PubSubSink, PubSubStream)>,
    stop: CancellationToken,
}

impl Notices {
    /// Subscribes the worker `process` to the wake-ups and cancellations of these shards, and to
    /// direct dispatches under the returned subscription.
    pub fn listen(index: &Index, shards: Vec<Shard>, process: Uuid, stop: CancellationToken) -> (Self, Subscription) {
        let mut channels = HashMap::new();
        for shard in &shards {
            channels.insert(keys::cancel_channel(index.prefix(), shard), Channel::Cancel);
            channels.insert(keys::wake_channel(index.prefix(), shard), Channel::Wake(shard.clone()));
        }
        let subscription = Subscription { process, connection: Arc::default() };
        let dispatches = Some((subscription.clone(), shards));
        (Self { dispatches, ..Self::of(index, channels, stop) }, subscription)
    }

    /// Subscribes to changes of jobs in these queues that any process follows by [`Index::watch`].
    pub fn watch(index: &Index, queues: &[QueueName], stop: CancellationToken) -> Self {
        let channel = |shard| (keys::events_channel(index.prefix(), &shard), Channel::Events);
        let shards = queues.iter().flat_map(|queue| index.shards(queue));
        Self::of(index, shards.map(channel).collect(), stop)
    }

    fn of(index: &Index, channels: HashMap<String, Channel>, stop: CancellationToken) -> Self {
        Self { index: index.clone(), channels, dispatches: None, connections: 0, connection: None, stop }
    }

    /// The next notification; `None` once the token is cancelled and no direct dispatch can follow.
    /// Call it again at once: notifications are buffered in memory meanwhile.
    pub async fn next(&mut self) -> Option<Notice> {
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.receive()).await {
            Some(notice) => Some(notice),
            None => self.last().await,
        }
    }

    /// Returns the direct dispatches received before Redis confirmed the end of the subscription.
    /// After that a script sees no subscriber and dispatches nothing.
    async fn last(&mut self) -> Option<Notice> {
        let (sink, messages) = self.connection.as_mut()?;
        if self.dispatches.take().is_some() {
            let dispatched = self.channels.iter().filter(|(_, channel)| matches!(channel, Channel::Dispatched(_)));
            let unsubscribing = async {
                for (name, _) in dispatched {
                    sink.unsubscribe(name).await?;
                }
                Ok::<_, RedisError>(())
            };
            // Without the confirmation the connection counts as closed, and dispatches on it have
            // no receiver.
            let _ = timeout(LAST_PATIENCE, unsubscribing).await;
        }
        while let Some(message) = messages.next().now_or_never()? {
            if let Some(dispatched @ Notice::Dispatched(..)) = notice(&self.channels, &message) {
                return Some(dispatched);
            }
        }
        None
    }

    async fn receive(&mut self) -> Notice {
        loop {
            let Some((_, messages)) = &mut self.connection else {
                match self.connect().await {
                    Ok(()) => return Notice::Connected,
                    Err(error) => tracing::debug!(%error, "cannot subscribe to the index"),
                }
                sleep(RECONNECT_PAUSE).await;
                continue;
            };
            let Some(message) = messages.next().await else {
                self.connection = None;
                if let Some((subscription, _)) = &self.dispatches {
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
        if let Some((subscription, shards)) = &self.dispatches {
            let name = subscription.name_of(self.connections);
            self.channels.retain(|_, channel| !matches!(channel, Channel::Dispatched(_)));
            self.channels.extend(shards.iter().map(|shard| {
                (keys::dispatch_channel(self.index.prefix(), shard, &name), Channel::Dispatched(shard.clone()))
            }));
        }
        self.connection = Some(subscribe(&self.index, self.channels.keys()).await?);
        if let Some((subscription, _)) = &self.dispatches {
            subscription.connection.store(self.connections, Ordering::Release);
        }
        Ok(())
    }
}

enum Channel {
    Wake(Shard),
    Dispatched(Shard),
    Cancel,
    Events,
}

impl Channel {
    fn notice(&self, message: &[u8]) -> Option<Notice> {
        match self {
            Self::Wake(shard) if message.is_empty() => Some(Notice::Wake(shard.clone())),
            Self::Wake(shard) => Some(Notice::NewlyActive(shard.clone())),
            Self::Dispatched(shard) => {
                DirectDispatch::parse(message).map(|dispatch| Notice::Dispatched(shard.clone(), dispatch))
            }
            Self::Cancel => cancelled(message),
            Self::Events => JobChange::parse(message).map(|(id, change)| Notice::Changed(id, change)),
        }
    }
}

/// Parses 16 bytes of id, then the attempt as text.
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
