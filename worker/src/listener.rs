//! Passing on what the index announces: work to an idle fetcher, cancellations to running jobs.
//!
//! Invariant: it never waits for either, so a cancellation reaches a run also while all slots are busy.

use std::sync::{Arc, Mutex, PoisonError};

use shared::queue::{Notice, Notices, Shard};
use tokio::sync::Notify;

use crate::holdings::Holdings;

/// What an idle fetcher sleeps on.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    shard: Mutex<Option<Shard>>,
}

impl Wake {
    /// There may be work, most likely in this shard.
    fn up(&self, shard: Option<Shard>) {
        *self.shard.lock().unwrap_or_else(PoisonError::into_inner) = shard;
        self.notify.notify_one();
    }

    /// Waits until there may be work, and says in which shard, if that is known.
    pub async fn heard(&self) -> Option<Shard> {
        self.notify.notified().await;
        self.shard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Listens until the notices end.
pub async fn listen(mut notices: Notices, holdings: Holdings, wake: Arc<Wake>) {
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Cancelled(id) => holdings.cancel(id),
            // A worker follows nothing.
            Notice::Changed(..) => {}
            Notice::Wake(shard) => wake.up(Some(shard)),
            Notice::Connected => wake.up(None),
        }
    }
}
