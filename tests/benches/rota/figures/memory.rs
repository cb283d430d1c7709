//! The memory of a waiting job in Redis.

use anyhow::Result;

use crate::{
    arguments::Size,
    backlog,
    bed::{Bed, queue},
    figure::{Measured, count},
    load::ARGS,
    scrape::redis_memory,
};

/// Measures at a tenth of the jobs, and at all of them.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let (own, mut owner) = ([bed.tenants[0].id], bed.owner().await?);
    backlog::rebuild_index(bed).await?;
    let empty = redis_memory(bed).await?;
    let (mut figures, mut there) = (Vec::new(), 0);
    for jobs in [size.jobs / 10, size.jobs] {
        backlog::commit(&mut owner, &own, jobs - there, "noop", ARGS).await?;
        there = jobs;
        backlog::rebuild_index(bed).await?;
        backlog::indexed(bed, &[queue()], jobs).await?;
        let each = (redis_memory(bed).await? - empty) / count(jobs);
        figures
            .push(Measured::new(format!("Redis memory per waiting job, {jobs} waiting"), each, "bytes").at_most(150.0));
    }
    Ok(figures)
}
