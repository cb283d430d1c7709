//! Jobs that depend on others: their order, the effect of a failure, and dependencies that are
//! refused.

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    test_app::{ApiClient, TestApp},
};
use uuid::Uuid;

use crate::api::{LEASE, PATIENCE, job_in_state};

const JOBS: &str = "/api/v1/jobs";

async fn after(api: &ApiClient, ids: &[Uuid], policy: &str) -> Result<Uuid> {
    let body = json!({ "kind": "noop", "after": ids, "on_dependency_failure": policy });
    let answer = api.post(JOBS, &body).await?;
    answer.ok(202);
    Ok(answer.id())
}

async fn noop(api: &ApiClient) -> Result<Uuid> {
    Ok(api.post(JOBS, &json!({ "kind": "noop" })).await?.id())
}

async fn cancel(api: &ApiClient, id: Uuid) -> Result<()> {
    api.act(&format!("{JOBS}/{id}/cancel")).await?.ok(200);
    Ok(())
}

async fn show(api: &ApiClient, id: Uuid) -> Result<Value> {
    Ok(api.get(&format!("{JOBS}/{id}")).await?.ok(200).clone())
}

fn time(job: &Value, name: &str) -> chrono::DateTime<chrono::FixedOffset> {
    job[name].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok()).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_runs_in_order() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    let body = json!({ "jobs": [
        { "kind": "sleep", "args": { "ms": 300 } },
        { "kind": "sleep", "args": { "ms": 100 }, "after": ["#0"] },
        { "kind": "noop", "after": ["#1", "#0"], "priority": 1 },
    ] });
    let answer = api.post("/api/v1/jobs/batch", &body).await?;
    assert_eq!(answer.ok(202)["results"][2]["state"], "scheduled", "{}", answer.text);
    let ids: Vec<Uuid> = (0..3).filter_map(|at| answer.body["results"][at]["id"].as_str()?.parse().ok()).collect();
    let last = show(&api, ids[2]).await?;
    assert_eq!((&last["state"], &last["waits_for"]), (&json!("scheduled"), &json!(2)));
    let mut done = Vec::new();
    for id in ids {
        done.push(job_in_state(&api, id, "completed").await);
    }
    for pair in done.windows(2) {
        assert!(time(&pair[1], "run_at") >= time(&pair[0], "finalized_at"), "{pair:?}");
        assert_eq!(pair[1]["attempt"], 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_cancels_the_dependent_or_is_ignored() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    let fails = json!({ "kind": "fail", "args": { "times": 1 }, "max_attempts": 1, "run_at": app.system.clock.now() + chrono::TimeDelta::seconds(1) });
    let root = api.post(JOBS, &fails).await?.id();
    let (cancelled, runs) = (after(&api, &[root], "cancel").await?, after(&api, &[root], "run").await?);
    let further = after(&api, &[cancelled], "cancel").await?;
    let in_spite = after(&api, &[cancelled, runs], "run").await?;
    job_in_state(&api, root, "discarded").await;
    for (id, cause) in [(cancelled, root), (further, cancelled)] {
        let job = job_in_state(&api, id, "cancelled").await;
        let told = job["errors"][0]["error"].as_str().unwrap_or_default();
        assert_eq!(told, format!("cancelled: job {cause}, which it waited for, did not complete"));
    }
    job_in_state(&api, runs, "completed").await;
    job_in_state(&api, in_spite, "completed").await;
    // Redriven, it no longer has dependencies.
    api.act(&format!("{JOBS}/{cancelled}/retry")).await?.ok(200);
    job_in_state(&api, cancelled, "completed").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_dependency_counts_at_once() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (done, dropped) = (noop(&api).await?, noop(&api).await?);
    cancel(&api, dropped).await?;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(4, LEASE));
    job_in_state(&api, done, "completed").await;
    let cancelled = after(&api, &[done, dropped], "cancel").await?;
    assert_eq!(show(&api, cancelled).await?["state"], "cancelled");
    job_in_state(&api, after(&api, &[done, done], "cancel").await?, "completed").await;
    job_in_state(&api, after(&api, &[done, dropped], "run").await?, "completed").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_dependent_stays_cancelled() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let root = noop(&api).await?;
    let (job, next) = {
        let job = after(&api, &[root], "cancel").await?;
        (job, after(&api, &[job], "cancel").await?)
    };
    cancel(&api, job).await?;
    assert_eq!(show(&api, next).await?["state"], "cancelled");
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(1, LEASE));
    job_in_state(&api, root, "completed").await;
    assert_eq!(show(&api, job).await?["state"], "cancelled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_must_be_an_existing_job_of_the_same_tenant() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let (own, foreign) = (noop(&api).await?, noop(&other).await?);
    let answer = api.post_once(JOBS, "key", &json!({ "kind": "noop", "after": [own, foreign, Uuid::max()] })).await?;
    let errors = &answer.problem(422, "invalid_body")["errors"];
    let told: Vec<&str> =
        errors.as_array().into_iter().flatten().filter_map(|error| error["pointer"].as_str()).collect();
    assert_eq!(told, ["/after/1", "/after/2"]);
    assert_eq!(errors[0]["detail"], errors[1]["detail"], "a foreign job is distinguishable from an unknown one");
    // Nothing was committed, and the key is still unused.
    api.post_once(JOBS, "key", &json!({ "kind": "noop", "after": [own] })).await?.ok(202);
    for (text, detail) in [
        ("#0", "the batch has no earlier job at that index"),
        ("#x", "expected the index of an earlier job of the batch after #"),
        ("#00", "expected the index of an earlier job of the batch after #"),
        ("x", "expected the id of a job, or # and the index of an earlier job of the batch"),
    ] {
        let answer = api.post(JOBS, &json!({ "kind": "noop", "after": [text] })).await?;
        assert_eq!(answer.only_error(), ("/after/0", detail));
    }
    for (count, status) in [(100, 202), (101, 422)] {
        assert_eq!(api.post(JOBS, &json!({ "kind": "noop", "after": vec![own; count] })).await?.status, status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_of_a_refused_job_of_the_batch_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    api.post(JOBS, &json!({ "kind": "noop", "unique": { "key": "taken" } })).await?.ok(202);
    let body = json!({ "jobs": [
        { "kind": "nop" },
        { "kind": "noop", "after": ["#0"] },
        { "kind": "noop", "unique": { "key": "taken" } },
        { "kind": "noop", "after": ["#2"], "unique": { "key": "free" } },
        { "kind": "noop", "after": ["#3"] },
        { "kind": "noop", "after": ["#5"] },
        { "kind": "noop" },
    ] });
    let answer = api.post("/api/v1/jobs/batch", &body).await?;
    let results = &answer.ok(202)["results"];
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"]), (&json!(1), &json!(6)), "{}", answer.text);
    for (at, detail) in [
        (1, "the job at that index of the batch was rejected"),
        (3, "that job was rejected"),
        (4, "that job was rejected"),
        (5, "the batch has no earlier job at that index"),
    ] {
        assert_eq!(results[at]["errors"][0], json!({ "pointer": "/after/0", "detail": detail }), "{at}");
    }
    // The unique key that was claimed earlier in the batch is free again.
    api.post(JOBS, &json!({ "kind": "noop", "unique": { "key": "free" } })).await?.ok(202);
    Ok(())
}

/// A dependent runs whether it is inserted before, during or after the end of its dependency.
#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_that_races_with_the_end_of_its_dependency_runs() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(8, LEASE));
    let race = async |at: u64| -> Result<Uuid> {
        let root = api.post(JOBS, &json!({ "kind": "sleep", "args": { "ms": at % 12 } })).await?.id();
        after(&api, &[root], "cancel").await
    };
    let dependents = join_all((0..100).map(race)).await;
    for id in dependents {
        let job = job_in_state(&api, id?, "completed").await;
        assert_eq!((&job["attempt"], &job["waits_for"]), (&json!(1), &json!(0)));
    }
    Ok(())
}

/// Cancelling, completing and adding dependents concurrently does not deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_ends_of_dependencies_do_not_deadlock() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(8, LEASE));
    let round = async |at: u64| -> Result<Vec<Uuid>> {
        let sleep =
            json!({ "kind": "sleep", "args": { "ms": at % 9 }, "unique": { "key": format!("key {}", at % 5) } });
        let body = json!({ "jobs": [sleep, { "kind": "noop" }, { "kind": "noop", "after": ["#1"] }], "on_complete": { "kind": "noop" } });
        let answer = api.post("/api/v1/jobs/batch", &body).await?;
        let results = answer.ok(202)["results"].as_array().cloned().unwrap_or_default();
        let ids: Vec<Uuid> = results.iter().filter_map(|result| result["id"].as_str()?.parse().ok()).collect();
        let dependent = json!({ "kind": "noop", "after": ids, "on_dependency_failure": if at.is_multiple_of(2) { "run" } else { "cancel" } });
        let cancel = format!("{JOBS}/{}/cancel", ids[0]);
        let (added, cancelled) = tokio::join!(api.post(JOBS, &dependent), api.act(&cancel));
        assert!([200, 409].contains(&cancelled?.status));
        Ok([ids, vec![added?.id()]].concat())
    };
    for ids in join_all((0..40).map(round)).await {
        for id in ids? {
            eventually(PATIENCE, "every job is final", async || {
                show(&api, id).await.ok()?["finalized_at"].is_string().then_some(())
            })
            .await;
        }
    }
    Ok(())
}

/// Both sides of the limit, within one request and across requests.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_may_wait_for_one() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let api = tenant.api;
    let (parent, idle) = (api.post(JOBS, &noop_after(&[])).await?.id(), api.post(JOBS, &noop_after(&[])).await?.id());
    api.post(JOBS, &noop_after(&[parent])).await?.ok(202);
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    let fill = "insert into job_dependencies (tenant_id, job_id, depends_on, run_on_failure)
                select $1, gen_random_uuid(), $2, true from generate_series(1, 9997)";
    sqlx::query(fill).bind(tenant.id.as_uuid()).bind(parent).execute(&mut owner).await?;
    // 9,998 jobs wait; of three more in one request, two fit.
    let body = json!({ "jobs": [noop_after(&[parent]), noop_after(&[parent]), noop_after(&[idle, parent]), noop_after(&[idle])] });
    let answer = api.post("/api/v1/jobs/batch", &body).await?;
    assert_eq!((&answer.ok(202)["accepted"], &answer.body["rejected"]), (&json!(3), &json!(1)), "{}", answer.text);
    assert_eq!(answer.body["results"][2]["errors"][0]["pointer"], "/after/1");
    let full = api.post(JOBS, &noop_after(&[parent])).await?;
    full.problem(422, "invalid_body");
    let (pointer, detail) = full.only_error();
    assert_eq!(pointer, "/after/0");
    assert!(detail.contains("10000 jobs wait"), "{detail}");
    Ok(())
}

fn noop_after(ids: &[Uuid]) -> Value {
    json!({ "kind": "noop", "after": ids })
}
