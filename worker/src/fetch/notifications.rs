//! Notifications of the index: work for the fetch loop, direct dispatches, cancellations of runs.
//!
//! Invariant: forwarding a notification never waits, so a cancellation reaches its run even while
//! all slots are busy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shared::queue::{DirectDispatch, Notice, Notices, Shard};
use tokio::sync::{Notify, mpsc};

use crate::lease::held_leases::HeldLeases;

/// What the fetch loop waits for.
pub(super) struct Notifications {
    changed: Notify,
    /// Whether there may be work, by shard.
    may_have_work: Vec<(Shard, AtomicBool)>,
    /// All shards become due when a permit is released.
    await_release: AtomicBool,
}

impl Notifications {
    /// No work is known in these shards.
    pub fn new(shards: &[Shard]) -> Arc<Self> {
        let may_have_work = shards.iter().map(|shard| (shard.clone(), AtomicBool::new(false))).collect();
        Arc::new(Self { changed: Notify::new(), may_have_work, await_release: AtomicBool::new(false) })
    }

    /// Records that there may be work in this shard.
    pub fn notify(&self, shard: &Shard) {
        self.mark(|known| known == shard);
    }

    fn notify_all(&self) {
        self.mark(|_| true);
    }

    fn mark(&self, is_it: impl Fn(&Shard) -> bool) {
        for (_, may_have_work) in self.may_have_work.iter().filter(|(shard, _)| is_it(shard)) {
            may_have_work.store(true, Ordering::Release);
        }
        self.wake();
    }

    /// Wakes the fetch loop after another change that it may wait for.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Makes all shards due at the next release of a permit.
    pub fn await_release(&self) {
        self.await_release.swap(true, Ordering::SeqCst);
    }

    /// Records that a permit was released, and is free.
    pub fn permit_released(&self) {
        let Self { await_release, .. } = self;
        if await_release.load(Ordering::SeqCst) && await_release.swap(false, Ordering::SeqCst) {
            self.notify_all();
        }
    }

    /// Waits for a notification.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a notification arrived for a shard since the last call.
    pub fn take(&self, at: usize) -> bool {
        self.may_have_work[at].1.swap(false, Ordering::AcqRel)
    }

    /// Forwards notifications until the stream ends.
    pub async fn listen(
        self: Arc<Self>,
        mut notices: Notices,
        newly_active: mpsc::Sender<Shard>,
        dispatched: mpsc::UnboundedSender<(Shard, DirectDispatch)>,
        held_leases: HeldLeases,
    ) {
        while let Some(notice) = notices.next().await {
            match notice {
                Notice::Cancelled(id, attempt) => held_leases.cancel_up_to(id, attempt),
                // Workers do not follow jobs.
                Notice::Changed(..) => {}
                Notice::Wake(shard) => self.notify(&shard),
                // If the channel is full, the fetch loop finds the jobs.
                Notice::NewlyActive(shard) => drop(newly_active.try_send(shard)),
                // Both receivers live as long as this task.
                Notice::Dispatched(shard, dispatch) => drop(dispatched.send((shard, dispatch))),
                Notice::Connected => self.notify_all(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_released_permit_makes_all_waiting_shards_due_once() {
        let shards = ["one", "two"].map(|name| Shard::whole(name.parse().expect("a name")));
        let notifications = Notifications::new(&shards);
        notifications.permit_released();
        assert!(notifications.changed().now_or_never().is_none() && !notifications.take(0));
        notifications.await_release();
        notifications.permit_released();
        assert!(notifications.changed().now_or_never().is_some());
        assert!(notifications.take(0) && notifications.take(1));
        notifications.permit_released();
        assert!(notifications.changed().now_or_never().is_none() && !notifications.take(0));
    }
}
