//! The connections that are open: which of them have had their time, and which makes room for a new one.
//!
//! Invariant: a connection with a request in flight is never evicted; the one that has idled longest is, so a flood of
//! silent sockets eats itself before it reaches a client that works. One task looks at all of them on a tick: a timer
//! for each would wake each, and a thousand idle ones would slow a good client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::ServerLimits;
use super::activity::Activity;

/// How soon to look again when every connection was busy.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(super) struct OpenConnections {
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Default)]
struct Table {
    next_key: u64,
    open: HashMap<u64, Arc<Activity>>,
}

impl OpenConnections {
    /// Enters a connection until the entry is dropped.
    pub(super) fn enter(self: &Arc<Self>, activity: Arc<Activity>) -> Entry {
        let mut table = self.table();
        let key = table.next_key;
        table.next_key += 1;
        table.open.insert(key, activity);
        Entry { connections: Arc::clone(self), key }
    }

    /// Returns once fewer than `max` are open, evicting idle ones for it.
    pub(super) async fn wait_for_room(&self, max: usize) {
        while self.table().open.len() >= max {
            self.evict_idlest();
            // A miss of the notification only costs the time-out.
            let _ = tokio::time::timeout(RETRY, self.freed.notified()).await;
        }
    }

    /// Reviews all connections for ever, often enough to be near the shortest limit.
    pub(super) async fn keep_reviewing(&self, limits: &ServerLimits) -> Infallible {
        let shortest = limits.header_timeout.min(limits.first_byte_timeout).min(limits.keep_alive);
        let period = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_millis(250));
        loop {
            tokio::time::sleep(period).await;
            self.each(|activity| activity.review(limits));
        }
    }

    /// Has every connection say goodbye.
    pub(super) fn close_all(&self) {
        self.each(Activity::close);
    }

    /// Ends every connection as it is.
    pub(super) fn cut_all(&self) {
        self.each(Activity::cut);
    }

    /// Evicts the connection that has idled longest, if there is one.
    pub(super) fn evict_idlest(&self) {
        let table = self.table();
        let idle = table.open.values().filter(|activity| !activity.is_cut());
        let idle = idle.filter_map(|activity| Some((activity.idle_since()?, activity)));
        if let Some((_, activity)) = idle.min_by_key(|(since, _)| *since) {
            activity.cut();
        }
    }

    /// How many have a request in flight.
    pub(super) fn busy(&self) -> usize {
        self.table().open.values().filter(|activity| activity.idle_since().is_none()).count()
    }

    fn each(&self, act: impl Fn(&Activity)) {
        self.table().open.values().for_each(|activity| act(activity));
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection.
pub(super) struct Entry {
    connections: Arc<OpenConnections>,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().open.remove(&self.key);
        self.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Version;

    #[test]
    fn the_longest_idle_makes_room_and_a_busy_one_never() {
        let connections = Arc::new(OpenConnections::default());
        let [busy, old, new] = [(); 3].map(|()| Activity::new());
        let _request = busy.begin_request(Version::HTTP_11);
        drop(new.begin_request(Version::HTTP_11));
        let _entries = [&busy, &old, &new].map(|activity| connections.enter(Arc::clone(activity)));
        connections.evict_idlest();
        assert_eq!([&busy, &old, &new].map(|activity| activity.is_cut()), [false, true, false]);
        connections.evict_idlest();
        connections.evict_idlest();
        assert_eq!([&busy, &old, &new].map(|activity| activity.is_cut()), [false, true, true]);
        assert_eq!(connections.busy(), 1);
    }

    #[tokio::test]
    async fn room_is_made_by_the_end_of_any_connection() {
        let connections = Arc::new(OpenConnections::default());
        let activity = Activity::new();
        let _request = activity.begin_request(Version::HTTP_11);
        let entry = connections.enter(activity);
        connections.wait_for_room(2).await;
        let waiter = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.wait_for_room(1).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(entry);
        waiter.await.unwrap();
    }
}
