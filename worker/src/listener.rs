//! Passing on what the index announces: work to an idle fetcher, cancellations to runs.
//!
//! Invariant: it never waits for either, so a cancellation reaches a run also while all slots are busy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shared::queue::{Grant, Notice, Notices, Shard};
use tokio::sync::{Notify, mpsc};

use crate::holdings::Holdings;

/// What an idle fetcher sleeps on.
pub struct Wake {
    notify: Notify,
    /// Whether there may be work, for each shard.
    woken: Vec<(Shard, AtomicBool)>,
    /// They were asked for less than they may have, for want of places.
    held_off: AtomicBool,
}

impl Wake {
    /// Nothing is known of these shards yet.
    pub fn new(shards: &[Shard]) -> Self {
        let woken = shards.iter().map(|shard| (shard.clone(), AtomicBool::new(false))).collect();
        Self { notify: Notify::new(), woken, held_off: AtomicBool::new(false) }
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

    /// From now on a place that is given back is worth asking all of them again.
    pub fn hold_off(&self) {
        self.held_off.swap(true, Ordering::SeqCst);
    }

    /// A place was given back, and is free.
    pub fn place_is_back(&self) {
        if self.held_off.load(Ordering::SeqCst) && self.held_off.swap(false, Ordering::SeqCst) {
            self.up(None);
        }
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
    holdings: Holdings,
) {
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Cancelled(id, attempt) => holdings.cancel_up_to(id, attempt),
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

#[cfg(test)]
mod tests {
    use futures::future::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_place_that_is_given_back_wakes_all_once_while_they_are_held_off() {
        let wake = Wake::new(&["one", "two"].map(|name| Shard::whole(name.parse().expect("a name"))));
        wake.place_is_back();
        assert!(wake.heard().now_or_never().is_none() && !wake.take(0));
        wake.hold_off();
        wake.place_is_back();
        assert!(wake.heard().now_or_never().is_some() && wake.take(0) && wake.take(1));
        wake.place_is_back();
        assert!(wake.heard().now_or_never().is_none() && !wake.take(0));
    }
}
