//! Computations of one tenant next to those of another.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use uuid::Uuid;

use super::*;

const A: TenantId = TenantId::new(Uuid::from_u128(1));
const B: TenantId = TenantId::new(Uuid::from_u128(2));
const PATIENCE: Duration = Duration::from_secs(30);

/// Work that continues until the sender is dropped.
fn held() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let work = move || {
        let _ = receiver.recv();
    };
    (sender, work)
}

#[tokio::test]
async fn a_tenant_at_its_limits_leaves_a_thread_to_others() {
    let pool = ComputePool::start(ComputeSettings { threads: 2, max_waiting: 3 });
    let mut ends = Vec::new();
    let mut computations = tokio::task::JoinSet::new();
    let refused = loop {
        let (end, work) = held();
        let running = pool.clone();
        computations.spawn(async move { running.run(A, "test", work).await });
        ends.push(end);
        tokio::task::yield_now().await;
        if let Some(refused) = computations.try_join_next() {
            break refused.expect("no panic");
        }
    };
    assert_eq!(refused, Err(Busy));
    assert!((4..=5).contains(&ends.len()), "one runs, three wait, one is refused: {}", ends.len());
    let answer = tokio::time::timeout(PATIENCE, pool.run(B, "test", || 42)).await;
    assert_eq!(answer, Ok(Ok(42)), "B does not wait for A");
    drop(ends);
    while let Some(done) = computations.join_next().await {
        assert_eq!(done.expect("no panic"), Ok(()));
    }
}

#[tokio::test]
async fn a_panic_reaches_its_caller_and_ends_no_thread() {
    let pool = ComputePool::start(ComputeSettings { threads: 2, max_waiting: 3 });
    for _ in 0..5 {
        let panicking = pool.clone();
        let end = tokio::spawn(async move { panicking.run(A, "test", || panic!("on purpose")).await }).await;
        assert!(end.expect_err("a panic").is_panic());
    }
    assert_eq!(pool.run(A, "test", || 1).await, Ok(1));
}

#[tokio::test]
async fn abandoned_work_is_skipped_and_the_threads_end_with_the_pool() {
    let pool = ComputePool::start(ComputeSettings { threads: 2, max_waiting: 10 });
    let ran = Arc::new(AtomicUsize::new(0));
    let (end, work) = held();
    let first = tokio::spawn({
        let pool = pool.clone();
        async move { pool.run(A, "test", work).await }
    });
    tokio::task::yield_now().await;
    let count = Arc::clone(&ran);
    let abandoned = pool.run(A, "test", move || count.fetch_add(1, Ordering::SeqCst));
    assert!(tokio::time::timeout(Duration::from_millis(1), abandoned).await.is_err());
    drop(end);
    assert_eq!(first.await.expect("no panic"), Ok(()));
    assert_eq!(pool.run(A, "test", || 1).await, Ok(1), "the work before it is done");
    assert_eq!(ran.load(Ordering::SeqCst), 0);

    let shared = Arc::downgrade(&pool.0.0);
    drop(pool);
    let deadline = Instant::now() + PATIENCE;
    while shared.strong_count() > 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(shared.strong_count(), 0, "a thread still holds the pool");
}

#[test]
fn thread_time_counts_computation_but_not_waiting() {
    let begun = thread_time();
    let spent = || thread_time().checked_sub(begun).expect("a thread's time never decreases");
    thread::sleep(Duration::from_millis(50));
    assert!(spent() < Duration::from_millis(40));
    while spent() < Duration::from_millis(2) {}
}
