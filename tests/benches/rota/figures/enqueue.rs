//! The rate at which the API responds with 202, which it does after the commit.

use anyhow::Result;

use crate::{
    arguments::Size,
    bed::Bed,
    client::post,
    figure::Measured,
    load::{ARGS, batches, hammer},
    scrape::rss,
};

const CONNECTIONS: usize = 64;

/// One job per request.
pub async fn single(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let request = post("/api/v1/jobs", &bed.tenants[0].api_key, &format!(r#"{{"kind":"noop","args":{ARGS}}}"#));
    // The first requests open connections to the ledger and fill caches.
    hammer(bed.port, CONNECTIONS, size.jobs / 20, vec![request.clone()]).await?;
    let took = hammer(bed.port, CONNECTIONS, size.jobs, vec![request]).await?;
    Ok(vec![
        Measured::rate("HTTP enqueue, single, 64 connections", size.jobs, took).at_least(10_000.0),
        rss("  api peak RSS", &bed.api)?,
    ])
}

/// A hundred jobs per request.
pub async fn batch(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let items = [format!(r#"{{"kind":"noop","args":{ARGS}}}"#)];
    let api_key = &bed.tenants[0].api_key;
    batches(bed.port, api_key, size.jobs / 20, &items).await?;
    let took = batches(bed.port, api_key, size.jobs, &items).await?;
    Ok(vec![Measured::rate("HTTP enqueue, batches of 100", size.jobs, took).at_least(40_000.0)])
}
