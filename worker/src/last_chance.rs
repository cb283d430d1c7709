//! A process to itself for a job that has cost two workers their life.
//!
//! Invariant: while such a job runs, this process holds no other lease. What runs is waited for, what has not begun is handed
//! back, and nothing more is leased. That it begins is noted in the ledger first; if the process dies after that, the job is to blame:
//! whoever is discarded as poison is guilty.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch},
    time::sleep,
};

use crate::holdings::Holdings;

/// Crashes after which a job's next run is its last chance: see [`shared::queue::rescue::MAX_CRASHES`].
pub const CRASHES: i16 = shared::queue::rescue::MAX_CRASHES - 1;

/// Keeps last chances apart from all other runs of the process. Cheap to clone.
#[derive(Clone)]
pub struct LastChances {
    /// Read while jobs are leased, written by a last chance.
    door: Arc<RwLock<()>>,
    announced: Arc<watch::Sender<bool>>,
}

/// Nothing else is held by the process as long as this is.
pub struct Alone<'a> {
    _announcement: Announcement<'a>,
    _door: RwLockWriteGuard<'a, ()>,
}

struct Announcement<'a>(&'a watch::Sender<bool>);

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl LastChances {
    /// None is under way.
    pub fn new() -> Self {
        Self { door: Arc::default(), announced: Arc::new(watch::Sender::new(false)) }
    }

    /// To be held from the leasing of jobs until they are entered in the holdings. Waits while a last chance is under way.
    pub async fn none_under_way(&self) -> RwLockReadGuard<'_, ()> {
        self.door.read().await
    }

    /// As [`Self::none_under_way`], without waiting: `None` while a last chance is under way, or about to be.
    pub fn none_now(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.door.try_read().ok()
    }

    /// Whether a job that has not begun must give way.
    pub fn is_announced(&self) -> bool {
        *self.announced.borrow()
    }

    /// Waits until a job that has not begun must give way.
    pub async fn announced(&self) {
        // The sender lives as long as this does.
        let _ = self.announced.subscribe().wait_for(|announced| *announced).await;
    }

    /// Empties the process but for one job; `None` if another last chance was first.
    pub async fn alone(&self, holdings: &Holdings) -> Option<Alone<'_>> {
        if self.announced.send_replace(true) {
            return None;
        }
        let announcement = Announcement(&self.announced);
        let door = self.door.write().await;
        while holdings.len() > 1 {
            sleep(Duration::from_millis(10)).await;
        }
        Some(Alone { _announcement: announcement, _door: door })
    }
}

impl Default for LastChances {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures::future::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_leased_beside_a_last_chance() {
        let (last_chances, holdings) = (LastChances::new(), Holdings::default());
        let leasing = last_chances.none_now().expect("none is under way");
        let mut first = Box::pin(last_chances.alone(&holdings));
        assert!(first.as_mut().now_or_never().is_none(), "it waits for who is leasing");
        assert!(last_chances.none_now().is_none(), "it is about to begin");
        drop(leasing);
        let alone = first.await.expect("it is the first");
        assert!(last_chances.none_now().is_none() && last_chances.alone(&holdings).await.is_none());
        drop(alone);
        assert!(last_chances.none_now().is_some());
    }
}
