//! What the API reports about itself, and what still works, while a store is unavailable.

use anyhow::Result;
use serde_json::json;
use tests::{
    eventually::eventually,
    postgres::{PostgresOptions, PrivatePostgres, SharedServer},
    redis_server::{PrivateRedis, RedisOptions},
    system::TestSystem,
    tcp_proxy::{Mode, TcpProxy},
    test_app::{ApiClient, TestApp},
};

use super::{LEASE, PATIENCE, job_in_state};

const JOBS: &str = "/api/v1/jobs";
const READINESS: &str = "/api/health/readiness";

async fn is(api: &ApiClient, state: &str) {
    eventually(PATIENCE, &format!("the API is {state}"), async || {
        let answer = api.get(READINESS).await.ok()?;
        (answer.status == 200 && answer.body["status"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_api_is_degraded_and_accepts_jobs() -> Result<()> {
    let mut redis = PrivateRedis::new(RedisOptions::default()).await?;
    let database = SharedServer::from_env()?.create_database().await?;
    let system = TestSystem::on(database.urls().clone(), redis.url(), Some(database)).await?;
    let app = TestApp::on(system).await?;
    let api = app.tenant("acme").await?.api;
    insta::assert_json_snapshot!(app.anonymous().get(READINESS).await?.ok(200), @r#"
    {
      "checks": [
        {
          "name": "database",
          "state": "up"
        },
        {
          "name": "redis",
          "state": "up"
        }
      ],
      "status": "up"
    }
    "#);
    // A store that hangs is reported like one that is down.
    redis.pause()?;
    let hung = app.anonymous().get(READINESS).await?;
    redis.resume()?;
    assert_eq!(hung.ok(200)["status"], "degraded");
    redis.kill().await?;
    is(&app.anonymous(), "degraded").await;
    let answer = app.anonymous().get("/api/health").await?;
    let away = json!({ "name": "redis", "state": "degraded", "reason": "the connection is refused" });
    assert_eq!(answer.ok(200)["checks"][1], away);
    let job = api.post(JOBS, &json!({ "kind": "noop" })).await?;
    assert_eq!(job.ok(202)["state"], "available");
    assert_eq!(api.get(job.header("location")).await?.ok(200)["state"], "available");
    let unwanted = api.post(JOBS, &json!({ "kind": "noop" })).await?.id();
    assert_eq!(api.act(&format!("{JOBS}/{unwanted}/cancel")).await?.ok(200)["state"], "cancelled");

    redis.start().await?;
    is(&app.anonymous(), "up").await;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    job_in_state(&api, job.id(), "completed").await;
    assert_eq!(api.get(&format!("{JOBS}/{unwanted}")).await?.ok(200)["state"], "cancelled");
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_every_response_has_retry_after() -> Result<()> {
    let mut postgres = PrivatePostgres::new(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let redis = std::env::var_os("REDIS_URL").unwrap_or_default().to_string_lossy().into_owned();
    let app = TestApp::on(TestSystem::on(postgres.urls().clone(), redis, None).await?).await?;
    let api = app.tenant("acme").await?.api;
    let job = api.post(JOBS, &json!({ "kind": "noop" })).await?;
    job.ok(202);
    postgres.stop_immediate().await?;

    let anonymous = app.anonymous();
    anonymous.get("/api/health/liveness").await?.ok(200);
    for path in [READINESS, "/api/health"] {
        let answer = anonymous.get(path).await?;
        let reason = "DATABASE_URL: the connection is refused";
        let database = json!({ "name": "database", "state": "down", "reason": reason });
        assert_eq!(answer.problem(503, "unavailable")["checks"][0], database);
        assert_eq!(answer.header("retry-after"), "1");
    }
    // The first request uses a cached key, the last one a key that cannot be looked up.
    let refusals = [
        api.post(JOBS, &json!({ "kind": "noop" })).await?,
        api.get(JOBS).await?,
        api.get("/api/v1/campaigns").await?,
        app.client(&format!("rota_{}_{}", "a".repeat(26), "a".repeat(52))).get(JOBS).await?,
    ];
    for answer in refusals {
        answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(!answer.text.contains("postgres") && !answer.text.contains("5432"), "{}", answer.text);
    }
    postgres.start().await?;
    is(&anonymous, "up").await;
    assert_eq!(api.get(job.header("location")).await?.ok(200)["id"], job.body["id"], "the acknowledged job exists");
    api.post(JOBS, &json!({ "kind": "noop" })).await?.ok(202);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_is_reported_by_the_probe() -> Result<()> {
    let database = SharedServer::from_env()?.create_database().await?;
    let mut urls = database.urls().clone();
    let (app, proxy) = TcpProxy::before(&urls.app).await?;
    (urls.app, urls.system) = (app, proxy.url(&urls.system)?);
    let redis = std::env::var_os("REDIS_URL").unwrap_or_default().to_string_lossy().into_owned();
    let app = TestApp::on(TestSystem::on(urls, redis, Some(database)).await?).await?;
    let anonymous = app.anonymous();
    is(&anonymous, "up").await;
    proxy.set(Mode::Blackhole);
    let answer = tokio::time::timeout(PATIENCE, anonymous.get(READINESS)).await??;
    assert_eq!(answer.problem(503, "unavailable")["checks"][0]["state"], "down");
    assert_eq!(answer.header("retry-after"), "1");
    anonymous.get("/api/health/liveness").await?.ok(200);
    proxy.set(Mode::Pass);
    is(&anonymous, "up").await;
    Ok(())
}
