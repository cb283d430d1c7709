//! The table of open connections: closes those that exceed their limits and evicts idle ones for
//! new connections.
//!
//! Invariant: a connection with a request in flight is never evicted; the one that has been idle
//! longest is, so a flood of silent sockets evicts its own sockets before those of an active
//! client. One task reviews all connections on a tick: with a timer per connection, a thousand idle
//! ones would wake up and slow down active clients.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::ServerLimits;
use super::activity::Activity;

/// Interval between attempts while every connection is busy.
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
    /// Adds a connection; it is removed when the entry is dropped.
    pub(super) fn enter(self: &Arc<Self>, activity: Arc<Activity>) -> Entry {
        let mut table = self.table();
        let key = table.next_key;
        table.next_key += 1;
        table.open.insert(key, activity);
        Entry { connections: Arc::clone(self), key }
    }

    /// Returns once fewer than `max` connections are open, evicting idle ones if necessary.
    pub(super) async fn wait_for_room(&self, max: usize) {
        while self.table().open.len() >= max {
            self.evict_idlest();
            // A missed notification costs only the time-out.
            let _ = tokio::time::timeout(RETRY, self.freed.notified()).await;
        }
    }

    /// Reviews all connections forever, at an interval well below the shortest limit.
    pub(super) async fn keep_reviewing(&self, limits: &ServerLimits) -> Infallible {
        let shortest = limits.header_timeout.min(limits.first_byte_timeout).min(limits.keep_alive);
        let period = (shortest / 4).clamp(Duration::from_millis(20), Duration::from_millis(250));
        loop {
            tokio::time::sleep(period).await;
            self.each(|activity| activity.review(limits));
        }
    }

    /// Shuts down every connection gracefully.
    pub(super) fn close_all(&self) {
        self.each(Activity::close);
    }

    /// Closes every connection immediately.
    pub(super) fn cut_all(&self) {
        self.each(Activity::cut);
    }

    /// Evicts the connection that has been idle longest, if any.
    pub(super) fn evict_idlest(&self) {
        let table = self.table();
        let idle = table.open.values().filter(|activity| !activity.is_cut());
        let idle = idle.filter_map(|activity| Some((activity.idle_since()?, activity)));
        if let Some((_, activity)) = idle.min_by_key(|(since, _)| *since) {
            activity.cut();
        }
    }

    /// Number of connections with a request in flight.
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
    fn the_longest_idle_connection_is_evicted_and_a_busy_one_never() {
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
    async fn a_waiter_continues_when_any_connection_ends() {
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
