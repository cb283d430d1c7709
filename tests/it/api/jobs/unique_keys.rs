//! Unique keys: one job of a tenant holds a key, until the job is final or for a period; a refusal
//! names the holder.

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::test_app::{Answer, ApiClient, TestApp};
use uuid::Uuid;

use crate::api::job_in_state;

const JOBS: &str = "/api/v1/jobs";

async fn submit(api: &ApiClient, key: &str) -> Result<Answer> {
    api.post(JOBS, &json!({ "kind": "noop", "unique": { "key": key } })).await
}

#[track_caller]
fn is_duplicate(answer: &Answer, holder: Uuid) {
    assert_eq!(answer.problem(409, "duplicate")["job_id"], holder.to_string(), "{}", answer.text);
}

async fn count(app: &TestApp) -> Result<i64> {
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    Ok(sqlx::query_scalar("select count(*) from jobs").fetch_one(&mut owner).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_held_until_its_job_is_final() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let first = submit(&api, "daily").await?.id();
    is_duplicate(&submit(&api, "daily").await?, first);
    submit(&api, "another").await?.ok(202);
    submit(&other, "daily").await?.ok(202);

    api.act(&format!("{JOBS}/{first}/cancel")).await?.ok(200);
    let second = submit(&api, "daily").await?.id();
    is_duplicate(&submit(&api, "daily").await?, second);
    // The first job cannot be retried while the second holds its key.
    is_duplicate(&api.act(&format!("{JOBS}/{first}/retry")).await?, second);
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, crate::api::LEASE));
    job_in_state(&api, second, "completed").await;
    assert_eq!(api.act(&format!("{JOBS}/{first}/retry")).await?.ok(200)["unique_key"], "daily");
    job_in_state(&api, first, "completed").await;
    submit(&api, "daily").await?.ok(202);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_holds_its_key_again() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let job = submit(&api, "daily").await?.id();
    api.act(&format!("{JOBS}/{job}/cancel")).await?.ok(200);
    api.act(&format!("{JOBS}/{job}/retry")).await?.ok(200);
    is_duplicate(&submit(&api, "daily").await?, job);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_a_period_outlives_its_job_and_is_then_taken_over() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop", "unique": { "key": "hourly", "until": { "seconds": 3_600 } } });
    let first = api.post(JOBS, &body).await?.id();
    api.act(&format!("{JOBS}/{first}/cancel")).await?.ok(200);
    is_duplicate(&api.post(JOBS, &body).await?, first);
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    sqlx::query("update unique_keys set expires_at = now()").execute(&mut owner).await?;
    let second = api.post(JOBS, &body).await?.id();
    is_duplicate(&api.post(JOBS, &body).await?, second);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_concurrent_requests_one_is_committed() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let answers = join_all((0..50).map(|_| submit(&api, "storm"))).await.into_iter().collect::<Result<Vec<_>>>()?;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert_eq!(accepted.len(), 1);
    assert_eq!(refused.len(), 49);
    assert_eq!(count(&app).await?, 1);
    for answer in refused {
        is_duplicate(answer, accepted[0].id());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_no_duplicate_and_a_duplicate_stores_no_idempotency_key() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let body = json!({ "kind": "noop", "unique": { "key": "once" } });
    let first = api.post_once(JOBS, "a", &body).await?;
    let repeat = api.post_once(JOBS, "a", &body).await?;
    assert_eq!(
        (first.ok(202)["id"].clone(), repeat.header("idempotency-replayed")),
        (repeat.ok(202)["id"].clone(), "true")
    );
    is_duplicate(&api.post_once(JOBS, "b", &body).await?, first.id());
    api.act(&format!("{JOBS}/{}/cancel", first.id())).await?.ok(200);
    let later = api.post_once(JOBS, "b", &body).await?;
    assert_ne!(later.ok(202)["id"], first.body["id"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_result_for_each_duplicate_and_a_repeat_the_same() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let holder = submit(&api, "taken").await?.id();
    let unique = |key: &str| json!({ "kind": "noop", "unique": { "key": key } });
    let body = json!({ "jobs": [unique("free"), unique("taken"), unique("free"), { "kind": "noop" }] });
    let answer = api.post_once("/api/v1/jobs/batch", "batch", &body).await?;
    let results = &answer.ok(202)["results"];
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"]), (&json!(2), &json!(2)), "{}", answer.text);
    assert_eq!((&results[1]["code"], &results[1]["job_id"]), (&json!("duplicate"), &json!(holder)));
    assert_eq!(results[2]["errors"][0]["pointer"], "/unique/key");
    assert_eq!(count(&app).await?, 3);
    let repeat = api.post_once("/api/v1/jobs/batch", "batch", &body).await?;
    assert_eq!((repeat.ok(202), repeat.header("idempotency-replayed")), (&answer.body, "true"));
    let all = api.post("/api/v1/jobs/batch", &json!({ "jobs": [unique("taken")] })).await?;
    assert_eq!(all.problem(422, "invalid_body")["results"][0]["code"], "duplicate");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_periods_have_bounds() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let try_it = async |key: String, until: Value| {
        api.post(JOBS, &json!({ "kind": "noop", "unique": { "key": key, "until": until } })).await
    };
    for (length, fits) in [(0, false), (1, true), (255, true), (256, false)] {
        let answer = try_it("ä".repeat(length), json!("final")).await?;
        assert_eq!(answer.status == 202, fits, "{length}: {}", answer.text);
        if !fits {
            answer.problem(422, "invalid_body");
            assert_eq!(answer.only_error().0, "/unique/key");
        }
    }
    for (seconds, fits) in [(0, false), (1, true), (2_592_000, true), (2_592_001, false)] {
        let answer = try_it(format!("for {seconds}"), json!({ "seconds": seconds })).await?;
        assert_eq!(answer.status == 202, fits, "{seconds}: {}", answer.text);
        if !fits {
            assert_eq!(answer.only_error().0, "/unique/until/seconds");
        }
    }
    try_it("x".into(), json!("never")).await?.problem(422, "invalid_body");
    Ok(())
}
