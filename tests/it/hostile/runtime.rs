//! Threads of the worker, blocked by A's handlers.
//!
//! Invariant: a handler that never yields costs no lease, heartbeat, settlement or health response;
//! jobs that cannot start in its process start in another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tests::{
    eventually::eventually,
    http_sink::{Behaviour, HttpSink},
    installation::{ApiClient, Installation, InstallationOptions},
};
use tokio::time::{sleep, timeout};

use super::ATTACK;

/// Three leases.
const SPIN: Duration = Duration::from_secs(6);
/// The limit for a worker's response to its probe.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// How long each of A's many jobs blocks its thread.
const BLOCK: Duration = Duration::from_millis(200);
/// The number of these jobs: together they take 20 s on two threads.
const BLOCKING: usize = 200;
/// B's jobs during the block.
const PROBES: usize = 10;
const SOON: Duration = Duration::from_secs(30);

/// Workers with two slots each, and one thread for their handlers.
async fn installation(workers: usize) -> Result<Installation> {
    let env = vec![("WORKER_CONCURRENCY", "2".to_owned()), ("TOKIO_WORKER_THREADS", "1".to_owned())];
    Installation::start_with(InstallationOptions { workers, env, ..InstallationOptions::default() }).await
}

async fn post(client: &ApiClient, job: &Value) -> Result<String> {
    let job = client.post("jobs", job).await?.expect(202)?;
    Ok(job["id"].as_str().context("a job has an id")?.to_owned())
}

async fn state_is(client: &ApiClient, id: &str, state: &str) -> Value {
    eventually(SOON, state, async || {
        let job = client.get(&format!("jobs/{id}")).await.ok()?.expect(200).ok()?;
        (job["state"] == state).then_some(job)
    })
    .await
}

/// Checks that every worker is ready until `over` has passed.
async fn stay_ready(rota: &Installation, over: Duration) -> Result<()> {
    let (http, began) = (Client::new(), Instant::now());
    while began.elapsed() < over {
        for worker in &rota.workers {
            let answer = timeout(READY_WITHIN, http.get(worker.ready_url()).send()).await;
            let answer = answer.with_context(|| format!("{} not ready after {:?}", worker.name, began.elapsed()))??;
            ensure!(answer.status() == StatusCode::OK, "{}: {answer:?}", worker.name);
        }
        // The interval between two samples.
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// B's job runs in the only process when A's handler blocks the only thread for three leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_thread_costs_no_lease() -> Result<()> {
    let _alone = ATTACK.lock().await;
    let (mut rota, sink) = (installation(1).await?, HttpSink::start().await?);
    sink.set("under-way", Behaviour::Hang);
    let callback = json!({ "kind": "callback", "args": { "url": sink.url(), "token": "under-way" } });
    let running = post(&rota.neighbour, &callback).await?;
    sink.wait_for("under-way", SOON).await;
    let spin = json!({ "kind": "spin", "args": { "ms": SPIN.as_millis(), "blocks": true } });
    let blocking = post(&rota.tenant, &spin).await?;
    state_is(&rota.tenant, &blocking, "running").await;
    stay_ready(&rota, SPIN.saturating_sub(Duration::from_secs(1))).await?;
    sink.release("under-way");
    for (client, id) in [(&rota.neighbour, &running), (&rota.tenant, &blocking)] {
        let job = state_is(client, id, "completed").await;
        ensure!(job["attempt"] == 1, "{job}");
    }
    ensure!(sink.count("under-way") == 1, "B's effect happened {} times", sink.count("under-way"));
    ensure!(rota.ended_by_themselves()?.is_empty());
    Ok(())
}

/// B's jobs, including those leased by the blocked process, run in the other process while the
/// block lasts.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_elsewhere_while_a_process_is_blocked() -> Result<()> {
    let _alone = ATTACK.lock().await;
    let (mut rota, sink) = (installation(2).await?, HttpSink::start().await?);
    let spin = json!({ "kind": "spin", "args": { "ms": SPIN.as_millis(), "blocks": true } });
    let blocking = post(&rota.tenant, &spin).await?;
    state_is(&rota.tenant, &blocking, "running").await;
    let (began, mut probes) = (Instant::now(), Vec::new());
    while began.elapsed() < SPIN.saturating_sub(Duration::from_secs(2)) {
        let token = format!("b-{}", probes.len());
        let callback = json!({ "kind": "callback", "args": { "url": sink.url(), "token": token } });
        probes.push(post(&rota.neighbour, &callback).await?);
        let arrived = timeout(SPIN / 3, sink.wait_for(&token, SOON)).await;
        ensure!(arrived.is_ok(), "{token} waits for A's handler");
    }
    ensure!(probes.len() >= 10, "only {} of B's jobs ran during A's", probes.len());
    for id in &probes {
        let job = state_is(&rota.neighbour, id, "completed").await;
        ensure!(job["attempt"] == 1, "{job}");
    }
    let job = state_is(&rota.tenant, &blocking, "completed").await;
    ensure!(job["attempt"] == 1, "{job}");
    ensure!(sink.tokens().values().all(|count| *count == 1), "{:?}", sink.tokens());
    ensure!(rota.ended_by_themselves()?.is_empty());
    Ok(())
}

/// A's handlers block all threads of the only process, one after the other, with just as many
/// waiting. A thread that becomes free goes to B's job, and later to the continuation of B's run.
#[tokio::test(flavor = "multi_thread")]
async fn a_free_thread_goes_to_the_tenant_with_the_fewest_running() -> Result<()> {
    let _alone = ATTACK.lock().await;
    let env = vec![("WORKER_CONCURRENCY", "50".to_owned()), ("TOKIO_WORKER_THREADS", "2".to_owned())];
    let options = InstallationOptions { env, ..InstallationOptions::default() };
    let (mut rota, sink) = (Installation::start_with(options).await?, HttpSink::start().await?);
    let spin = json!({ "kind": "spin", "args": { "ms": BLOCK.as_millis(), "blocks": true } });
    let blocking = post(&rota.tenant, &spin).await?;
    for _ in 1..BLOCKING {
        post(&rota.tenant, &spin).await?;
    }
    state_is(&rota.tenant, &blocking, "running").await;
    let mut waits = Vec::new();
    for probe in 0..PROBES {
        let token = format!("b-{probe}");
        let callback = json!({ "kind": "callback", "args": { "url": sink.url(), "token": token } });
        let began = Instant::now();
        post(&rota.neighbour, &callback).await?;
        sink.wait_for(&token, SOON).await;
        waits.push(began.elapsed());
    }
    waits.sort_unstable();
    let jobs = rota.tenant.get("jobs?kind=spin&state=available&limit=1").await?.expect(200)?;
    ensure!(jobs["items"].as_array().is_some_and(|jobs| !jobs.is_empty()), "A's jobs ended before B's: {jobs}");
    ensure!(waits[PROBES - 1] <= 15 * BLOCK, "B's jobs took {waits:?}");
    ensure!(rota.ended_by_themselves()?.is_empty());
    Ok(())
}

/// Handlers that compute on their own threads, on all slots: the queue machinery still gets its
/// share of the processors.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_compute_on_all_slots_cost_no_lease() -> Result<()> {
    let _alone = ATTACK.lock().await;
    let rota = installation(2).await?;
    let spin = json!({ "kind": "spin", "args": { "ms": SPIN.as_millis() } });
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(post(&rota.tenant, &spin).await?);
    }
    stay_ready(&rota, SPIN).await?;
    for id in &jobs {
        let job = state_is(&rota.tenant, id, "completed").await;
        ensure!(job["attempt"] == 1, "{job}");
    }
    Ok(())
}
