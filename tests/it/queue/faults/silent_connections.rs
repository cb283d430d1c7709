//! Connections to PostgreSQL that fall silent: the peer is gone without a close, as when a firewall
//! drops its state. New connections work.

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

/// Longer than the statement time-out, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// Jobs per request.
const BATCH: usize = 500;
/// Concurrent clients.
const CLIENTS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_stop_neither_the_api_nor_a_worker_for_long() -> Result<()> {
    // The default lease, which is longer than the statement time-out.
    let env = vec![("ROTA_LEASE_MS", "30000".to_owned())];
    let rota = Installation::start_with(InstallationOptions { env, ..InstallationOptions::default() }).await?;
    let job = json!({ "kind": "sleep", "args": { "ms": 1 } });
    let plain = json!({ "jobs": vec![job.clone(); BATCH] });
    let related = json!({ "jobs": [job, { "kind": "noop", "after": ["#0"] }] });
    let accepts = async |batch| rota.tenant.post("jobs/batch", batch).await.is_ok_and(|answer| answer.status == 202);
    for batch in [&plain, &related, &plain, &related] {
        accepts(batch).await;
    }
    // Slow, so that statements are in flight on both sides, on all connections of the API's
    // writers.
    let links = [&rota.links.api.postgres, &rota.links.worker.postgres];
    for link in links {
        link.set(Mode::Delay(Duration::from_millis(100)));
    }
    let batches = [&plain, &related].into_iter().cycle().take(CLIENTS);
    let posting = join_all(batches.map(accepts));
    let silencing = async {
        // Statements of both sides are in flight by then, and the slow links keep them there.
        sleep(Duration::from_secs(1)).await;
        for link in links {
            link.silence_open();
            link.set(Mode::Pass);
        }
    };
    tokio::join!(posting, silencing);
    for batch in [&plain, &related] {
        eventually(PATIENCE, "the API accepts jobs again", async || accepts(batch).await.then_some(())).await;
    }
    eventually(PATIENCE, "all jobs have ended", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    assert_eq!(rota.repeated_jobs().await?, 0, "no end was taken for a crash");
    Ok(())
}
