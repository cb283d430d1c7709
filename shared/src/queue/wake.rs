//! Hearing from the index instead of asking it: wake-ups of idle workers, and cancellations of running jobs.
//!
//! Invariant: a notice is a hint. Losing one (a broken connection, a restart) costs time, never a job: workers poll as well,
//! and a finish of a cancelled job is refused by the ledger.

use std::{collections::HashMap, time::Duration};

use futures::StreamExt as _;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Index, QueueName, keys};

const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
const BUFFERED: usize = 1_024;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There may be work in this queue.
    Wake(QueueName),
    /// This job was cancelled.
    Cancelled(Uuid),
    /// The connection is new: anything may have been missed.
    Connected,
}

/// A stream of notices that reconnects by itself until the token is cancelled.
pub struct Notices {
    receiver: mpsc::Receiver<Notice>,
}

impl Notices {
    /// Listens for the given queues.
    pub fn listen(index: &Index, queues: Vec<QueueName>, stop: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let index = index.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(async {
                loop {
                    if let Err(error) = follow(&index, &queues, &sender).await {
                        tracing::debug!(%error, "not hearing from the index");
                    }
                    sleep(RECONNECT_PAUSE).await;
                }
            })
            .await
        });
        Self { receiver }
    }

    /// The next notice; `None` after the token was cancelled.
    pub async fn next(&mut self) -> Option<Notice> {
        self.receiver.recv().await
    }
}

async fn follow(index: &Index, queues: &[QueueName], sender: &mpsc::Sender<Notice>) -> Result<(), redis::RedisError> {
    let mut subscription = index.client().get_async_pubsub().await?;
    let mut wakes = HashMap::new();
    for queue in queues {
        let wake = keys::wake_channel(index.prefix(), queue);
        subscription.subscribe(&wake).await?;
        subscription.subscribe(keys::cancel_channel(index.prefix(), queue)).await?;
        wakes.insert(wake, queue.clone());
    }
    let _ = sender.send(Notice::Connected).await;
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        let notice = match wakes.get(message.get_channel_name()) {
            Some(queue) => Some(Notice::Wake(queue.clone())),
            None => Uuid::from_slice(message.get_payload_bytes()).ok().map(Notice::Cancelled),
        };
        if let Some(notice) = notice
            && sender.send(notice).await.is_err()
        {
            break;
        }
    }
    Ok(())
}
