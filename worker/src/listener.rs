//! Passing on what the index announces: work to an idle fetcher, cancellations to who looks them up.
//!
//! Invariant: it never waits for either, so a cancellation reaches a run also while all slots are busy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shared::queue::{Grant, Notice, Notices, Shard};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// What an idle fetcher sleeps on.
pub struct Wake {
    notify: Notify,
    /// Whether there may be work, for each shard.
    woken: Vec<(Shard, AtomicBool)>,
}

impl Wake {
    /// Nothing is known of these shards yet.
    pub fn new(shards: &[Shard]) -> Self {
        let woken = shards.iter().map(|shard| (shard.clone(), AtomicBool::new(false))).collect();
        Self { notify: Notify::new(), woken }
    }

    /// There may be work: in this shard, or anywhere.
    pub fn up(&self, shard: Option<&Shard>) {
        for (_, woken) in self.woken.iter().filter(|(known, _)| shard.is_none_or(|shard| shard == known)) {
            woken.store(true, Ordering::Release);
        }
        self.again();
    }

    /// Something else has changed that a fetcher may wait for.
    pub fn again(&self) {
        self.notify.notify_one();
    }

    /// Waits until there may be something to do.
    pub async fn heard(&self) {
        self.notify.notified().await;
    }

    /// Whether there may be work in a shard, said since this was last asked.
    pub fn take(&self, at: usize) -> bool {
        self.woken[at].1.swap(false, Ordering::AcqRel)
    }
}

/// Listens until the notices end.
pub async fn listen(
    mut notices: Notices,
    wake: Arc<Wake>,
    newcomers: mpsc::Sender<Shard>,
    granted: mpsc::UnboundedSender<(Shard, Grant)>,
    cancelled: mpsc::UnboundedSender<Uuid>,
) {
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Cancelled(id) => drop(cancelled.send(id)),
            // A worker follows nothing.
            Notice::Changed(..) => {}
            Notice::Wake(shard) => wake.up(Some(&shard)),
            // If there are too many to be told, the rounds find them.
            Notice::Newcomer(shard) => drop(newcomers.try_send(shard)),
            // Both receivers are there as long as this.
            Notice::Granted(shard, grant) => drop(granted.send((shard, grant))),
            Notice::Connected => wake.up(None),
        }
    }
}
