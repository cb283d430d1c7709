//! Forwards notifications of the index: work to an idle fetch loop, cancellations to runs.
//!
//! Invariant: the listener never waits for either, so a cancellation reaches its run even while all
//! slots are busy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shared::queue::{Grant, Notice, Notices, Shard};
use tokio::sync::{Notify, mpsc};

use crate::held_leases::HeldLeases;

/// Wakes an idle fetch loop.
pub struct Wake {
    notify: Notify,
    /// Whether there may be work, by shard.
    woken: Vec<(Shard, AtomicBool)>,
    /// A fetch was held off for lack of permits.
    held_off: AtomicBool,
}

impl Wake {
    /// No work is known in these shards.
    pub fn new(shards: &[Shard]) -> Self {
        let woken = shards.iter().map(|shard| (shard.clone(), AtomicBool::new(false))).collect();
        Self { notify: Notify::new(), woken, held_off: AtomicBool::new(false) }
    }

    /// Records that there may be work in this shard, or in any shard.
    pub fn up(&self, shard: Option<&Shard>) {
        for (_, woken) in self.woken.iter().filter(|(known, _)| shard.is_none_or(|shard| shard == known)) {
            woken.store(true, Ordering::Release);
        }
        self.again();
    }

    /// Wakes the fetch loop after another change that it may wait for.
    pub fn again(&self) {
        self.notify.notify_one();
    }

    /// Makes all shards due for a fetch at the next released permit.
    pub fn hold_off(&self) {
        self.held_off.swap(true, Ordering::SeqCst);
    }

    /// Records that a permit was released, and is free.
    pub fn place_is_back(&self) {
        if self.held_off.load(Ordering::SeqCst) && self.held_off.swap(false, Ordering::SeqCst) {
            self.up(None);
        }
    }

    /// Waits for a notification.
    pub async fn heard(&self) {
        self.notify.notified().await;
    }

    /// Whether a notification arrived for a shard since the last call.
    pub fn take(&self, at: usize) -> bool {
        self.woken[at].1.swap(false, Ordering::AcqRel)
    }
}

/// Forwards notifications until the stream ends.
pub async fn listen(
    mut notices: Notices,
    wake: Arc<Wake>,
    newly_active: mpsc::Sender<Shard>,
    granted: mpsc::UnboundedSender<(Shard, Grant)>,
    held_leases: HeldLeases,
) {
    while let Some(notice) = notices.next().await {
        match notice {
            Notice::Cancelled(id, attempt) => held_leases.cancel_up_to(id, attempt),
            // Workers do not follow jobs.
            Notice::Changed(..) => {}
            Notice::Wake(shard) => wake.up(Some(&shard)),
            // If the channel is full, the fetch loop finds the jobs.
            Notice::NewlyActive(shard) => drop(newly_active.try_send(shard)),
            // Both receivers live as long as this task.
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
