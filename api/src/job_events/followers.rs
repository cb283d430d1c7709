//! Followers of jobs: a notification goes to the followers of its job and to no others.
//!
//! Invariant: a job is listed exactly as long as it has a follower, so the list is no longer than
//! the number of streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::queue::{Notice, Notices};
use tokio::sync::watch;
use uuid::Uuid;

/// The list. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Followers(Arc<Mutex<HashMap<Uuid, watch::Sender<()>>>>);

/// The subscription of a follower to a job, until it is dropped.
pub struct Following {
    job: Uuid,
    changed: watch::Receiver<()>,
    followers: Followers,
}

impl Followers {
    pub(super) fn follow(&self, job: Uuid) -> Following {
        let changed = self.list().entry(job).or_insert_with(|| watch::Sender::new(())).subscribe();
        Following { job, changed, followers: self.clone() }
    }

    /// Forwards notifications until they end. Some may have been lost before a new connection, so
    /// every follower then reads its job again.
    pub(super) async fn pass_on(self, mut notices: Notices) {
        while let Some(notice) = notices.next().await {
            match notice {
                Notice::Changed(job, _) => self.notify(job),
                Notice::Connected => self.list().values().for_each(|changed| changed.send_replace(())),
                Notice::Wake(_) | Notice::NewlyActive(_) | Notice::Dispatched(..) | Notice::Cancelled(..) => {}
            }
        }
    }

    fn notify(&self, job: Uuid) {
        if let Some(changed) = self.list().get(&job) {
            changed.send_replace(());
        }
    }

    fn list(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// Returns once the job may have changed since the last return; several notifications may be
    /// merged.
    pub async fn changed(&mut self) {
        // The sender stays in the list while this subscription exists.
        let _ = self.changed.changed().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut list = self.followers.list();
        // This receiver is the last one.
        if list.get(&self.job).is_some_and(|changed| changed.receiver_count() <= 1) {
            list.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_notification_reaches_all_followers_of_its_job_only() {
        let (followers, job) = (Followers::default(), Uuid::from_u128(1));
        let (mut first, mut second) = (followers.follow(job), followers.follow(job));
        let mut other = followers.follow(Uuid::from_u128(2));
        followers.notify(job);
        followers.notify(job);
        first.changed().await;
        second.changed().await;
        assert!(timeout(MOMENT, first.changed()).await.is_err(), "two notifications before a read are merged");
        assert!(timeout(MOMENT, other.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_job_is_listed_while_it_has_followers() {
        let (followers, job) = (Followers::default(), Uuid::from_u128(1));
        let (first, mut second) = (followers.follow(job), followers.follow(job));
        drop(first);
        followers.notify(job);
        second.changed().await;
        drop(second);
        assert!(followers.list().is_empty());
    }
}
