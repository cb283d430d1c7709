//! Serialises callers with the same key, so that later callers find the result of the first.
//!
//! Invariant: callers with different keys never wait for each other; a key is stored only while a
//! caller waits or works under it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

type Mutexes<K> = HashMap<K, Arc<tokio::sync::Mutex<()>>>;

/// One turn at a time for the callers with the same key.
#[derive(Debug)]
pub struct Turns<K>(Mutex<Mutexes<K>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Runs `work` after all earlier callers with this key. `work` must look for their result
    /// first.
    pub async fn run<T>(&self, key: &K, work: impl Future<Output = T>) -> T {
        let mut turn = Turn { turns: self, key, guard: None };
        let mutex = Arc::clone(self.lock().entry(key.clone()).or_default());
        turn.guard = Some(mutex.lock_owned().await);
        let done = work.await;
        drop(turn);
        done
    }

    /// A panic while the lock is held leaves the table consistent.
    fn lock(&self) -> std::sync::MutexGuard<'_, Mutexes<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of a caller; it also ends when the caller is dropped.
struct Turn<'a, K: Eq + Hash + Clone> {
    turns: &'a Turns<K>,
    key: &'a K,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut mutexes = self.turns.lock();
        if mutexes.get(self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            mutexes.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt as _, future::join_all};
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn callers_with_the_same_key_run_one_at_a_time_and_leave_no_entry() {
        let (turns, at_work) = (Turns::default(), AtomicUsize::new(0));
        let work = || async {
            assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            yield_now().await;
            at_work.fetch_sub(1, Ordering::SeqCst);
        };
        join_all((0..10).map(|_| turns.run(&1, work()))).await;
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn other_keys_do_not_wait_and_a_cancelled_caller_frees_its_turn() {
        let turns = Turns::default();
        let mut first = Box::pin(turns.run(&1, std::future::pending::<()>()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(turns.run(&1, async {}));
        assert!(second.as_mut().now_or_never().is_none(), "the first caller still has its turn");
        assert!(turns.run(&2, async {}).now_or_never().is_some());
        drop(first);
        second.await;
        assert!(turns.lock().is_empty());
    }
}
