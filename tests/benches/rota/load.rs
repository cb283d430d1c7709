//! Sends requests: as fast as responses arrive, or at a steady pace regardless of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{sync::mpsc, task::JoinSet, time::interval};

use crate::{
    client::{Client, post},
    stamps::now_ns,
};

const BATCH: usize = 100;
/// Idle connections for paced requests, so that a slow response does not delay the next request.
const READY: usize = 16;
/// About 200 bytes, like the payload in the benchmarks of comparable projects.
pub const ARGS: &str = concat!(
    r#"{"pad":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"#,
    r#"012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}"#
);

/// Sends the requests in rotation, `times` in total, over several connections.
pub async fn hammer(port: u16, connections: usize, times: usize, requests: Vec<Vec<u8>>) -> Result<Duration> {
    let (requests, left) = (Arc::new(requests), Arc::new(AtomicUsize::new(times)));
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(port).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (requests, left) = (Arc::clone(&requests), Arc::clone(&left));
        tasks.spawn(async move {
            while let Ok(at) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                client.accepted(&requests[at % requests.len()]).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(started.elapsed())
}

/// Commits jobs through the API in batches of 100, repeating the given items.
pub async fn batches(port: u16, api_key: &str, jobs: usize, items: &[String]) -> Result<Duration> {
    let bodies = items.len().div_ceil(BATCH);
    let mut items = items.iter().map(String::as_str).cycle();
    let request = |_| {
        let batch: Vec<&str> = items.by_ref().take(BATCH).collect();
        post("/api/v1/jobs/batch", api_key, &format!(r#"{{"jobs":[{}]}}"#, batch.join(",")))
    };
    hammer(port, 8, jobs / BATCH, (0..bodies).map(request).collect()).await
}

/// The send times of paced requests, in order.
pub struct Paced {
    /// Unix nanoseconds from just before the request was written; `None` if it was refused.
    pub sent_ns: Vec<Option<i64>>,
}

/// Sends one request per interval, open loop.
pub async fn paced(port: u16, every: Duration, requests: Vec<Vec<u8>>) -> Result<Paced> {
    let (give_back, mut ready) = mpsc::channel(READY);
    for _ in 0..READY {
        give_back.send(Client::connect(port).await?).await?;
    }
    let (mut ticks, mut tasks) = (interval(every), JoinSet::new());
    let mut sent_ns = vec![None; requests.len()];
    for (number, request) in requests.into_iter().enumerate() {
        ticks.tick().await;
        let Some(mut client) = ready.recv().await else { break };
        let give_back = give_back.clone();
        tasks.spawn(async move {
            let sent_ns = now_ns();
            let accepted = client.accepted(&request).await.is_ok();
            // Fails once the last request has been sent.
            let _ = give_back.send(client).await;
            (number, accepted.then_some(sent_ns))
        });
    }
    while let Some(task) = tasks.join_next().await {
        let (number, sent) = task?;
        sent_ns[number] = sent;
    }
    Ok(Paced { sent_ns })
}
