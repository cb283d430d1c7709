//! Connections to PostgreSQL that fall silent: the other end is gone and nobody says so, as when a firewall forgets them. New connections work.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;
use tests::{
    eventually::eventually,
    installation::{Installation, InstallationOptions},
    tcp_proxy::Mode,
};
use tokio::time::sleep;

/// Longer than a statement is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Jobs of one request.
const BATCH: usize = 500;
/// That post at the same time.
const CLIENTS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn they_stop_neither_the_api_nor_a_worker_for_long() -> Result<()> {
    // As it is by default: longer than a statement is waited for.
    let env = vec![("ROTA_LEASE_MS", "30000".to_owned())];
    let rota = Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await?;
    let job = json!({ "kind": "sleep", "args": { "ms": 1 } });
    let plain = json!({ "jobs": vec![job.clone(); BATCH] });
    let tied = json!({ "jobs": [job, { "kind": "noop", "after": ["#0"] }] });
    let accepts = async |batch| rota.tenant.post("jobs/batch", batch).await.is_ok_and(|answer| answer.status == 202);
    for batch in [&plain, &tied, &plain, &tied] {
        accepts(batch).await;
    }
    // Slow, so that statements are under way on both sides, on all connections of the API's writers.
    let links = [&rota.links.api.postgres, &rota.links.worker.postgres];
    for link in links {
        link.set(Mode::Delay(Duration::from_millis(100)));
    }
    let batches = [&plain, &tied].into_iter().cycle().take(CLIENTS);
    let posting = join_all(batches.map(accepts));
    let silencing = async {
        sleep(Duration::from_secs(1)).await;
        for link in links {
            link.silence_open();
            link.set(Mode::Pass);
        }
    };
    tokio::join!(posting, silencing);
    for batch in [&plain, &tied] {
        eventually(PATIENCE, "the API accepts jobs again", async || accepts(batch).await.then_some(())).await;
    }
    eventually(PATIENCE, "all jobs have ended", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    assert_eq!(rota.repeated_jobs().await?, 0, "no end was taken for a crash");
    Ok(())
}
