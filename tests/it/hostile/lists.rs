//! Memory: many concurrent pages over the largest jobs and campaigns that A may have.

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use tests::installation::Installation;

use super::unharmed;

/// The allowed growth of the process, whatever A requests.
const GROWTH_MIB: u64 = 200;

/// The API's resident memory, in MiB.
fn resident(rota: &Installation) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rota.api.process.id()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a size")?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib / 1_024)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_over_the_largest_jobs_and_campaigns() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    let job = json!({ "kind": "noop", "run_at": "2100-01-01T00:00:00Z", "args": { "pad": "x".repeat(65_000) } });
    for _ in 0..7 {
        let jobs: Vec<&Value> = vec![&job; 30];
        tenant.post("jobs/batch", &json!({ "jobs": jobs })).await?.expect(202)?;
    }
    let text = "y".repeat(200_000);
    let draft =
        json!({ "name": "A", "subject": "S", "text": text, "html": text, "from": { "email": "a@rota.example" } });
    for _ in 0..30 {
        tenant.post("campaigns", &draft).await?.expect(201)?;
    }
    let too_large = json!({ "kind": "noop", "args": { "pad": "x".repeat(2_000_000) } });
    let before = resident(&rota)?;
    unharmed(&mut rota, async || {
        for _ in 0..5 {
            let paths = ["jobs?limit=200", "campaigns?limit=200"].into_iter().cycle().take(8);
            let pages = paths.map(|path| tenant.get(path));
            let bodies = (0..4).map(|_| tenant.post("jobs", &too_large));
            for answer in join_all(pages).await {
                let answer = answer?;
                ensure!(matches!(answer.status.as_u16(), 200 | 429), "{}", answer.status);
                ensure!(answer.body.to_string().len() <= 2 << 20, "a page of {} bytes", answer.body.to_string().len());
            }
            for answer in join_all(bodies).await {
                let status = answer?.status.as_u16();
                ensure!(matches!(status, 422 | 429), "{status}");
            }
        }
        Ok(())
    })
    .await?;
    let after = resident(&rota)?;
    ensure!(after <= before + GROWTH_MIB, "{before} MiB before, {after} MiB after");
    Ok(())
}
