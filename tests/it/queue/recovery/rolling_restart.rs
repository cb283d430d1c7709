//! A rolling release: every process is stopped and started again, while clients keep sending and
//! repeat failed requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::future::join_all;
use serde_json::json;
use tests::{
    eventually::{eventually, poll_until},
    installation::{ApiClient, Installation},
};

const CLIENTS: usize = 4;
/// How long a client repeats one request.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends until `stop` is set, and returns the number of requests, all of which succeeded in the
/// end.
async fn send(client: ApiClient, number: usize, stop: Arc<AtomicBool>) -> Result<i64> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("client {number}, request {sent}");
        let body = json!({ "kind": "sleep", "args": { "ms": 20 } });
        poll_until(PATIENCE, async || {
            let answer = client.post_once("jobs", &key, &body).await.ok()?;
            assert!(matches!(answer.status.as_u16(), 200 | 202 | 503), "{} {}", answer.status, answer.body);
            answer.status.is_success().then_some(())
        })
        .await
        .with_context(|| format!("{key} never succeeded"))?;
        sent += 1;
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_and_repeats_no_job() -> Result<()> {
    let mut rota = Installation::start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|number| send(rota.tenant.clone(), number, Arc::clone(&stop)));
    let clients = join_all(clients.collect::<Vec<_>>());
    // `terminate_in_turn` requires each process to exit with status 0.
    let restarts = async {
        for _ in 0..2 {
            rota.terminate_in_turn().await?;
        }
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (clients, restarted) = tokio::join!(clients, restarts);
    restarted?;
    let sent: i64 = clients.into_iter().sum::<Result<i64>>()?;
    assert!(sent > 0);
    eventually(PATIENCE, "no job is left", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    let jobs = rota.jobs().await?;
    assert_eq!(jobs.get(&("sleep".to_owned(), "completed".to_owned())), Some(&sent), "{jobs:?}");
    let repeated = rota.repeated_jobs().await?;
    assert_eq!(repeated, 0, "a stopping worker releases or finishes its jobs, without costing an attempt");
    Ok(())
}
