//! An API that dies between commit and response, response and push, cancellation and announcement.

use anyhow::Result;
use serde_json::{Value, json};
use tests::{
    free_port::free_port,
    http_sink::{Behaviour, HttpSink},
    process::ProcessUnderTest,
    test_app::{Answer, ApiClient, TestApp},
};

use super::is_killed;
use crate::queue::support::{LEASE, Ledger, PATIENCE, indexed, process_spec, reaches};

/// An API that will be killed, beside the app's own, which survives.
async fn doomed(app: &TestApp, key: &str, point: &str) -> Result<(ProcessUnderTest, ApiClient)> {
    planned(app, key, &format!("{point}:1:kill")).await
}

/// An API with a planned fault.
async fn planned(app: &TestApp, key: &str, plan: &str) -> Result<(ProcessUnderTest, ApiClient)> {
    let port = free_port()?;
    let spec = process_spec(&app.system, "api")?.arg("serve").env("PORT", port.to_string());
    let mut api = spec.env("ROTA_FAULT", plan).start()?;
    api.wait_ready(&format!("http://127.0.0.1:{port}/api/health/readiness"), PATIENCE).await?;
    Ok((api, ApiClient::new(&format!("http://127.0.0.1:{port}"), Some(key))))
}

async fn key(app: &TestApp, tenant: shared::tenancy::TenantId) -> Result<String> {
    Ok(app.key(tenant, &["jobs:create", "jobs:read", "jobs:control"], None).await?.1)
}

fn callback(sink: &HttpSink, token: &str) -> Value {
    json!({ "kind": "callback", "args": { "url": sink.url(), "token": token } })
}

async fn jobs(app: &TestApp) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from jobs").fetch_one(&mut Ledger::open(&app.system).await?.0).await?)
}

/// The client gets no response and repeats the request under the same key: there is one job, which
/// runs once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_response_the_repeat_finds_the_job() -> Result<()> {
    let (app, sink) = (TestApp::start().await?, HttpSink::start().await?);
    let tenant = app.tenant("acme").await?;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    indexed(&app.system, 0).await;
    let (mut api, client) = doomed(&app, &key(&app, tenant.id).await?, "after_commit_before_push").await?;
    let lost: Result<Answer> = client.post_once("/api/v1/jobs", "key", &callback(&sink, "effect")).await;
    assert!(lost.is_err(), "the request got a response: {lost:?}");
    is_killed(&mut api).await?;
    assert_eq!(jobs(&app).await?, 1, "the commit came before the kill");

    let id = tenant.api.post_once("/api/v1/jobs", "key", &callback(&sink, "effect")).await?.id();
    reaches(&app.system, tenant.id, id, "completed").await;
    assert_eq!(jobs(&app).await?, 1);
    assert_eq!(sink.count("effect"), 1);
    Ok(())
}

/// The client has its 202; the job was never pushed to the index.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_response_and_push_the_job_is_swept_up() -> Result<()> {
    let (app, sink) = (TestApp::start().await?, HttpSink::start().await?);
    let tenant = app.tenant("acme").await?;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    indexed(&app.system, 0).await;
    let (mut api, client) = planned(&app, &key(&app, tenant.id).await?, "before_push:1:hang").await?;
    let answered = client.post_once("/api/v1/jobs", "key", &callback(&sink, "effect")).await?.id();
    api.kill9().await?;
    sink.wait_for("effect", PATIENCE).await;
    let id = tenant.api.post_once("/api/v1/jobs", "key", &callback(&sink, "effect")).await?.id();
    assert_eq!(id, answered);
    reaches(&app.system, tenant.id, id, "completed").await;
    assert_eq!(jobs(&app).await?, 1);
    assert_eq!(sink.count("effect"), 1);
    Ok(())
}

/// The holder gets no notification and finishes: the ledger refuses that finish, because the job is
/// cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_announcing_a_cancellation_the_job_stays_cancelled() -> Result<()> {
    let (app, sink) = (TestApp::start().await?, HttpSink::start().await?);
    sink.set("effect", Behaviour::Hang);
    let tenant = app.tenant("acme").await?;
    let (_scheduler, worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    let (mut api, client) = doomed(&app, &key(&app, tenant.id).await?, "after_cancel_before_announcement").await?;
    let id = tenant.api.post("/api/v1/jobs", &callback(&sink, "effect")).await?.id();
    sink.wait_for("effect", PATIENCE).await;
    assert!(client.act(&format!("/api/v1/jobs/{id}/cancel")).await.is_err());
    is_killed(&mut api).await?;
    let cancelled = Ledger::open(&app.system).await?.row(id).await?;
    assert_eq!(cancelled.state, "cancelled");
    sink.release("effect");
    worker.stop().await?;
    assert_eq!(Ledger::open(&app.system).await?.row(id).await?, cancelled);
    Ok(())
}

/// Some requests of a commit group are refused as a whole, and the reply to the group's commit is
/// lost: each request gets the response that it would have got. The writers are kept busy, so that
/// the requests meet in one group.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_commit_is_in_doubt_gets_the_outcome_of_the_commit() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let holder = tenant.api.post("/api/v1/jobs", &unique("held")).await?.id();
    let plan = "after_commit_before_its_reply:2:error";
    let (_api, client) = planned(&app, &key(&app, tenant.id).await?, plan).await?;
    // The second group consists of the requests that arrive during the commit of the first.
    let requests = (0..20).map(|number| {
        let (client, name) =
            (client.clone(), if number % 2 == 0 { "held".to_owned() } else { format!("free {number}") });
        tokio::spawn(async move { client.post_once("/api/v1/jobs", &format!("key {number}"), &unique(&name)).await })
    });
    let requests: Vec<_> = requests.collect();
    for (number, request) in requests.into_iter().enumerate() {
        let answer = request.await??;
        if number % 2 == 0 {
            assert_eq!(answer.problem(409, "duplicate")["job_id"], holder.to_string());
        } else {
            answer.ok(202);
        }
    }
    assert_eq!(jobs(&app).await?, 1 + 10);
    Ok(())
}

fn unique(key: &str) -> Value {
    json!({ "kind": "noop", "unique": { "key": key } })
}
