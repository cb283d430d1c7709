//! The time until a cancellation stops a running job.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    arguments::Size,
    bed::Bed,
    client::{Client, post},
    figure::Measured,
    stamps::{Stamps, ms_between, now_ns},
};

const SLOTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// From just before the request is written until the run has been dropped. The other slots keep
/// running other jobs.
pub async fn take(bed: &mut Bed, size: Size) -> Result<Vec<Measured>> {
    let _worker = bed.worker(SLOTS).await?;
    let stamps = Stamps::listen().await?;
    let mut client = Client::connect(bed.port).await?;
    let mut run = Running { bed, stamps: &stamps, client: &mut client };
    for token in 0..SLOTS as u64 / 2 {
        run.start(1_000_000 + token).await?;
    }
    let mut waits = Vec::new();
    for token in 0..u64::try_from(size.jobs)? {
        let id = run.start(token).await?;
        waits.push(run.cancel(token, &id).await?);
    }
    Ok(vec![
        Measured::percentile("cancel of a running job: request to stop, p50", &mut waits, 50),
        Measured::percentile("cancel of a running job: request to stop, p99", &mut waits, 99).at_most(250.0),
    ])
}

struct Running<'a> {
    bed: &'a Bed,
    stamps: &'a Stamps,
    client: &'a mut Client,
}

impl Running<'_> {
    /// Starts a long job and returns its id.
    async fn start(&mut self, token: u64) -> Result<String> {
        let args = json!({ "ms": 600_000, "stamp": self.stamps.argument(token) });
        let body = json!({ "kind": "sleep", "args": args }).to_string();
        let request = post("/api/v1/jobs", &self.bed.tenants[0].api_key, &body);
        let answer: Value = serde_json::from_slice(self.client.answered(&request, "202").await?)?;
        let id = answer["id"].as_str().context("the response contains the job's id")?.to_owned();
        self.stamps.wait(token, PATIENCE, |runs| !runs.starts.is_empty()).await.context("no start stamp")?;
        Ok(id)
    }

    /// Cancels the job and returns how many milliseconds later it stopped.
    async fn cancel(&mut self, token: u64, id: &str) -> Result<f64> {
        let request = post(&format!("/api/v1/jobs/{id}/cancel"), &self.bed.tenants[0].api_key, "");
        let sent_ns = now_ns();
        self.client.answered(&request, "200").await?;
        let runs = self.stamps.wait(token, PATIENCE, |runs| !runs.ends.is_empty()).await.context("no end stamp")?;
        Ok(ms_between(sent_ns, runs.ends[0]))
    }
}
