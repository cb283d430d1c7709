//! Quarantine: an exclusive run for a job that has already crashed two workers.
//!
//! Invariant: while such a job runs, this process holds no other lease. It waits for the jobs that
//! run, releases the jobs that have not started, and leases no more. The ledger records the
//! exclusive run before it starts, so if the process dies after that, the job is the cause: every
//! job discarded as poison has crashed a process that ran nothing else.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch},
    time::sleep,
};

use super::held_leases::HeldLeases;

/// Crashes after which the next run of a job is exclusive: see
/// [`shared::queue::repair::rescue::MAX_CRASHES`].
pub const CRASHES: i16 = shared::queue::repair::rescue::MAX_CRASHES - 1;

/// Separates exclusive runs from all other runs of the process. Cheap to clone.
#[derive(Clone)]
pub struct Quarantine {
    /// Read-locked while jobs are leased, write-locked by an exclusive run.
    door: Arc<RwLock<()>>,
    announced: Arc<watch::Sender<bool>>,
}

/// While this guard exists, the process holds no other lease.
pub struct ExclusiveRun<'a> {
    _announcement: Announcement<'a>,
    _door: RwLockWriteGuard<'a, ()>,
}

struct Announcement<'a>(&'a watch::Sender<bool>);

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Quarantine {
    /// Starts without an exclusive run.
    pub fn new() -> Self {
        Self { door: Arc::default(), announced: Arc::new(watch::Sender::new(false)) }
    }

    /// Admits a fetch. Hold the guard from before the lease until the jobs are in the held leases.
    /// Waits while an exclusive run is in progress.
    pub async fn none_under_way(&self) -> RwLockReadGuard<'_, ()> {
        self.door.read().await
    }

    /// As [`Self::none_under_way`], without waiting: `None` while an exclusive run is in progress
    /// or announced.
    pub fn none_now(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.door.try_read().ok()
    }

    /// Whether jobs that have not started must be released for an exclusive run.
    pub fn is_announced(&self) -> bool {
        *self.announced.borrow()
    }

    /// Waits until an exclusive run is announced.
    pub async fn announced(&self) {
        // The sender lives as long as `self`.
        let _ = self.announced.subscribe().wait_for(|announced| *announced).await;
    }

    /// Waits until the process holds only one job; `None` if another exclusive run came first.
    pub async fn alone(&self, held_leases: &HeldLeases) -> Option<ExclusiveRun<'_>> {
        if self.announced.send_replace(true) {
            return None;
        }
        let announcement = Announcement(&self.announced);
        let door = self.door.write().await;
        while held_leases.len() > 1 {
            sleep(Duration::from_millis(10)).await;
        }
        Some(ExclusiveRun { _announcement: announcement, _door: door })
    }
}

impl Default for Quarantine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_leased_during_an_exclusive_run() {
        let (quarantine, held_leases) = (Quarantine::new(), HeldLeases::default());
        let leasing = quarantine.none_now().expect("no exclusive run is in progress");
        let mut first = Box::pin(quarantine.alone(&held_leases));
        assert!(first.as_mut().now_or_never().is_none(), "the exclusive run waits for the fetch in progress");
        assert!(quarantine.none_now().is_none(), "an exclusive run is announced");
        drop(leasing);
        let alone = first.await.expect("no other exclusive run came first");
        assert!(quarantine.none_now().is_none() && quarantine.alone(&held_leases).await.is_none());
        drop(alone);
        assert!(quarantine.none_now().is_some());
    }
}
