//! The time to rebuild the index from nothing, while jobs keep arriving.

use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use crate::{
    arguments::Size,
    backlog,
    bed::{Bed, queue},
    client::{Client, post},
    figure::{Measured, count},
    load::ARGS,
};

/// One request with one job at each interval; open loop, except for waiting for the response of the
/// single connection.
const ENQUEUE_EVERY: Duration = Duration::from_millis(2);

/// From the loss until workers may fetch and every page of the ledger has been pushed.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let (own, mut owner) = ([bed.tenants[0].id], bed.owner().await?);
    backlog::commit(&mut owner, &own, size.jobs, "noop", ARGS).await?;
    backlog::rebuild_index(bed).await?;
    let request = post("/api/v1/jobs", &bed.tenants[0].api_key, &format!(r#"{{"kind":"noop","args":{ARGS}}}"#));
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let enqueue = tokio::spawn(keep_enqueueing(bed.port, request, stopped));
    let took = backlog::rebuild_index(bed).await?;
    // Fails only if the task has already ended, together with the API.
    let _ = stop.send(());
    let (accepted, failed) = enqueue.await??;
    backlog::indexed(bed, &[queue()], size.jobs + accepted).await?;
    Ok(vec![
        Measured::new(format!("index rebuild of {} jobs, grace included", size.jobs), took.as_secs_f64(), "s")
            .at_most(30.0),
        Measured::rate("  enqueue meanwhile", accepted, took),
        Measured::new("  enqueue meanwhile: refused", count(failed), "requests").at_most(0.0),
    ])
}

/// Returns how many jobs were accepted, and how many were not.
async fn keep_enqueueing(
    port: u16,
    request: Vec<u8>,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> Result<(usize, usize)> {
    let (mut client, mut accepted, mut failed) = (Client::connect(port).await?, 0, 0);
    let mut ticks = tokio::time::interval(ENQUEUE_EVERY);
    while timeout(Duration::ZERO, &mut stopped).await.is_err() {
        ticks.tick().await;
        if client.accepted(&request).await.is_ok() {
            accepted += 1;
        } else {
            failed += 1;
            client = Client::connect(port).await?;
        }
    }
    Ok((accepted, failed))
}
