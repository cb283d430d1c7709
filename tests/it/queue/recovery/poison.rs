//! Jobs that harm their worker: too much memory, no end, args nested too deep to parse. (Panics:
//! `complete::outcomes`; aborts: `crash`.)

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tests::{system::TestSystem, test_app::TestApp};

use crate::queue::support::{LEASE, Ledger, PATIENCE, errors, indexed, reaches, unleased, worker_spec};

/// Address space of a worker, in KiB, and a job that needs more.
const LIMIT_KIB: u32 = 6_000_000;
const WANTED_MIB: u32 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_exhausts_memory_costs_three_workers_at_most() -> Result<()> {
    let system = TestSystem::start().await?;
    let tenant = system.tenant("acme").await?;
    let mut jobs: Vec<_> = (0..3).map(|_| system.job(tenant, "sleep", &json!({ "ms": 200 }))).collect();
    jobs.insert(0, system.job(tenant, "alloc", &json!({ "mib": WANTED_MIB })));
    let ids = system.enqueue(jobs).await?;
    let _scheduler = system.scheduler();
    indexed(&system, 4).await;
    let limited = format!("ulimit -v {LIMIT_KIB} && exec \"$@\"");
    let mut worker =
        worker_spec(&system, 4, Duration::from_secs(2))?.under("/bin/sh", ["-c", &limited, "sh"]).start()?;
    let mut deaths = 0;
    while deaths < 3 {
        assert!(!worker.wait_exit(PATIENCE).await?.success());
        deaths += 1;
        worker.restart().await?;
    }
    let poison = reaches(&system, tenant, ids[0], "discarded").await;
    assert!(errors(&poison)[2].starts_with("poison: "), "{:?}", poison.errors);
    for id in &ids[1..] {
        reaches(&system, tenant, *id, "completed").await;
    }
    worker.sigterm()?;
    assert_eq!(worker.wait_exit(PATIENCE).await?.code(), Some(0), "there was no fourth death");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_job_affects_no_other_and_can_be_stopped() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let system = &app.system;
    let (_scheduler, worker) = (system.scheduler(), system.worker(2, LEASE));
    let endless = system.enqueue(vec![system.job(tenant.id, "spin", &json!({ "ms": 3_600_000 }))]).await?[0];
    reaches(system, tenant.id, endless, "running").await;
    let others = system.enqueue((0..20).map(|_| system.job(tenant.id, "sleep", &json!({ "ms": 5 }))).collect()).await?;
    for id in others {
        reaches(system, tenant.id, id, "completed").await;
    }
    tenant.api.act(&format!("/api/v1/jobs/{endless}/cancel")).await?.ok(200);
    unleased(system, endless).await;
    // The stop's grace would allow more time, which is not needed.
    let told = std::time::Instant::now();
    worker.stop().await?;
    assert!(told.elapsed() < Duration::from_secs(5), "the job kept spinning for {:?}", told.elapsed());
    assert_eq!(Ledger::open(system).await?.row(endless).await?.state, "cancelled");
    Ok(())
}

/// Nested deeper than any parser accepts: refused by the API, and discarded without harm if the job
/// gets in by other means.
#[tokio::test(flavor = "multi_thread")]
async fn arguments_nested_too_deep_affect_no_other_job() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let system = &app.system;
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let body = format!(r#"{{"kind":"noop","args":{{"pad":{deep}}}}}"#);
    let request = tenant.api.request(&http::Method::POST, "/api/v1/jobs").header("content-type", "application/json");
    let refused = tests::test_app::Answer::to(request.body(body)).await?;
    assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text);

    let mut job = system.job(tenant.id, "noop", &Value::Object(serde_json::Map::new()));
    job.args = serde_json::value::RawValue::from_string(format!(r#"{{"pad":{deep}}}"#))?;
    let company = system.job(tenant.id, "noop", &json!({}));
    let ids = system.enqueue(vec![job, company]).await?;
    let (_scheduler, worker) = (system.scheduler(), system.worker(1, LEASE));
    let poison = reaches(system, tenant.id, ids[0], "discarded").await;
    assert!(errors(&poison)[0].starts_with("args: "), "{:?}", poison.errors);
    reaches(system, tenant.id, ids[1], "completed").await;
    worker.stop().await
}
