//! Limits on the jobs named in `after`: per request, and open per tenant.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use shared::config::DependencyConfig;
use tests::{
    eventually::eventually,
    system::TestSystem,
    test_app::{ApiClient, TestApp},
};
use uuid::Uuid;

use crate::api::PATIENCE;

const JOBS: &str = "/api/v1/jobs";
const BATCH: &str = "/api/v1/jobs/batch";

async fn app(per_request: usize, open: usize) -> Result<TestApp> {
    TestApp::with_dependencies(TestSystem::start().await?, DependencyConfig { per_request, open }).await
}

/// A batch with this many dependencies; each job names its dependency twice, which counts once.
fn waiting(head: Uuid, dependencies: usize) -> Value {
    let jobs = (0..dependencies).map(|_| json!({ "kind": "noop", "after": [head, head] }));
    json!({ "jobs": jobs.collect::<Vec<_>>() })
}

async fn head(api: &ApiClient) -> Result<Uuid> {
    Ok(api.post(JOBS, &json!({ "kind": "noop" })).await?.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_limit_of_dependencies() -> Result<()> {
    let app = app(5, 1_000).await?;
    let api = app.tenant("acme").await?.api;
    let head = head(&api).await?;
    api.post(BATCH, &waiting(head, 5)).await?.ok(202);
    let refused = api.post(BATCH, &waiting(head, 6)).await?;
    let problem = refused.problem(422, "too_many_dependencies");
    assert_eq!((&problem["dependencies"], &problem["limit"]), (&json!(6), &json!(5)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_limit_of_open_dependencies() -> Result<()> {
    let app = app(5, 8).await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let first = head(&api).await?;
    api.post(BATCH, &waiting(first, 5)).await?.ok(202);
    let refused = api.post(BATCH, &waiting(first, 4)).await?;
    let problem = refused.problem(429, "too_many_open_dependencies");
    assert_eq!(
        (&problem["open_dependencies"], &problem["dependencies"], &problem["limit"]),
        (&json!(5), &json!(4), &json!(8))
    );
    assert!(!refused.header("retry-after").is_empty());
    let accepted = api.post_once(BATCH, "key", &waiting(first, 3)).await?;
    accepted.ok(202);
    let one = json!({ "kind": "noop", "after": [first] });
    api.post(JOBS, &one).await?.problem(429, "too_many_open_dependencies");
    // A repeat adds nothing, and jobs without dependencies are not limited.
    let repeated = api.post_once(BATCH, "key", &waiting(first, 3)).await?;
    assert_eq!((repeated.ok(202), repeated.header("idempotency-replayed")), (accepted.ok(202), "true"));
    api.post(JOBS, &json!({ "kind": "noop" })).await?.ok(202);
    // Other tenants have their own limit.
    let theirs = head(&other).await?;
    other.post(BATCH, &waiting(theirs, 5)).await?.ok(202);
    // A job that is final no longer has open dependencies.
    api.act(&format!("{JOBS}/{first}/cancel")).await?.ok(200);
    let second = head(&api).await?;
    let one = json!({ "kind": "noop", "after": [second] });
    eventually(PATIENCE, "there is room again", async || {
        let answer = api.post(JOBS, &one).await.ok()?;
        (answer.status == 202).then_some(())
    })
    .await;
    Ok(())
}

/// Plans prepared while there were few jobs must also serve many.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_many_dependents_is_cancelled_soon() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    // PostgreSQL keeps a plan after five executions.
    for _ in 0..8 {
        let head = head(&api).await?;
        api.post(BATCH, &waiting(head, 1)).await?.ok(202);
        api.act(&format!("{JOBS}/{head}/cancel")).await?.ok(200);
    }
    let later = json!({ "kind": "noop", "run_at": "2099-01-01T00:00:00Z" });
    let heads = api.post(BATCH, &json!({ "jobs": vec![later; 100] })).await?;
    let results = heads.ok(202)["results"].as_array().cloned().unwrap_or_default();
    let heads: Vec<&str> = results.iter().filter_map(|result| result["id"].as_str()).collect();
    let dependents = json!({ "jobs": vec![json!({ "kind": "noop", "after": heads }); 100] });
    for _ in 0..9 {
        api.post(BATCH, &dependents).await?.ok(202);
    }
    for head in &heads[..2] {
        let began = Instant::now();
        api.act(&format!("{JOBS}/{head}/cancel")).await?.ok(200);
        assert!(began.elapsed() < Duration::from_secs(2), "cancelled after {:?}", began.elapsed());
    }
    let (began, filter) = (Instant::now(), json!({ "filter": { "state": "scheduled" }, "limit": 10_000 }));
    api.post("/api/v1/jobs/cancel", &filter).await?.ok(200);
    assert!(began.elapsed() < Duration::from_secs(10), "cancelled after {:?}", began.elapsed());
    Ok(())
}
