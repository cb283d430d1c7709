//! Progress and result of a job.

use anyhow::Result;
use serde_json::json;
use tests::{eventually::eventually, test_app::TestApp};

use crate::api::{LEASE, PATIENCE, job_in_state};

const JOBS: &str = "/api/v1/jobs";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_shows_its_progress() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let body = json!({ "kind": "sleep", "args": { "ms": 20_000, "steps": 40 } });
    let job = api.post(JOBS, &body).await?.id();
    let mut last = 0;
    for _ in 0..2 {
        last = eventually(PATIENCE, "the progress advanced", async || {
            let job = api.get(&format!("{JOBS}/{job}")).await.ok()?.body;
            let percent = job["progress"]["percent"].as_u64().filter(|percent| *percent > last)?;
            assert_eq!((&job["state"], &job["progress"]["attempt"]), (&json!("running"), &json!(1)));
            assert!(job["progress"]["message"].as_str()?.starts_with("step "), "{job}");
            Some(percent)
        })
        .await;
    }
    assert!(last <= 100);
    api.act(&format!("{JOBS}/{job}/cancel")).await?.ok(200);
    assert_eq!(job_in_state(&api, job, "cancelled").await["progress"], json!(null), "progress belongs to the run");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_stored_up_to_its_limit() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let submit = async |bytes: usize| -> Result<serde_json::Value> {
        let body = json!({ "kind": "sleep", "args": { "ms": 0, "result_bytes": bytes } });
        let job = api.post(JOBS, &body).await?.id();
        Ok(job_in_state(&api, job, "completed").await["result"].clone())
    };
    assert_eq!(submit(65_536).await?.as_str().map(str::len), Some(65_534));
    assert_eq!(submit(65_537).await?, json!({ "omitted": true, "size_bytes": 65_537, "limit_bytes": 65_536 }));
    Ok(())
}
