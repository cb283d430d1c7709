//! Args that a worker could not decode are refused at submission, on every route that takes jobs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::Method;
use serde_json::{Value, json};
use tests::{
    eventually::eventually,
    test_app::{Answer, ApiClient, TestApp},
};
use uuid::Uuid;

use crate::api::{LEASE, PATIENCE};

const JOBS: &str = "/api/v1/jobs";

/// Args of `sleep` on which the schema, `serde_json::Value` and the decoder disagree, or that no
/// row could hold.
const UNDECODABLE: [&str; 16] = [
    r#"{"ms":1.0}"#,
    r#"{"ms":1e1}"#,
    r#"{"ms":-0}"#,
    r#"{"ms":18446744073709551616}"#,
    r#"{"ms":1e400}"#,
    r#"{"ms":NaN}"#,
    r#"{"ms":1,"ms":2}"#,
    r#"{"ms":1,"m\u0073":2}"#,
    r#"{"ms":1,"\ud800":2}"#,
    r#"{"ms":1,"stamp":"\udc00"}"#,
    r#"{"ms":1,"\u0000":2}"#,
    r#"{"MS":1}"#,
    r#"{"ms":"1"}"#,
    r#"{"ms":1,"steps":256}"#,
    r"[1]",
    r"{}",
];

async fn post_text(api: &ApiClient, path: &str, text: String) -> Result<Answer> {
    Answer::to(api.request(&Method::POST, path).header("content-type", "application/json").body(text)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn args_that_cannot_be_decoded_are_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for args in UNDECODABLE {
        let job = format!(r#"{{"kind":"sleep","args":{args}}}"#);
        let single = post_text(&api, JOBS, job.clone()).await?;
        if args.contains("NaN") {
            single.problem(400, "invalid_json");
            continue;
        }
        single.problem(422, "invalid_args");
        let pointer = single.body["errors"][0]["pointer"].as_str().context("a place")?;
        assert!(pointer.starts_with("/args"), "{args}: {}", single.text);

        let batch = post_text(&api, "/api/v1/jobs/batch", format!(r#"{{"jobs":[{{"kind":"noop"}},{job}]}}"#)).await?;
        assert_eq!(batch.ok(202)["results"][1]["code"], "invalid_args", "{args}: {}", batch.text);
        let completion = format!(r#"{{"jobs":[{{"kind":"noop"}}],"on_complete":{job}}}"#);
        let completion = post_text(&api, "/api/v1/jobs/batch", completion).await?;
        completion.problem(422, "invalid_args");
        let pointer = completion.body["errors"][0]["pointer"].as_str().context("a place")?;
        assert!(pointer.starts_with("/on_complete/args"), "{args}: {}", completion.text);
    }
    let kinds = api.get(&format!("{JOBS}?kind=sleep")).await?;
    assert_eq!(kinds.ok(200)["items"], json!([]), "no part of the request was committed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn args_may_be_left_out_null_or_empty_alike() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for body in [r#"{"kind":"noop"}"#, r#"{"kind":"noop","args":null}"#, r#"{"kind":"noop","args":{}}"#] {
        let job = post_text(&api, JOBS, body.to_owned()).await?.id();
        assert_eq!(api.get(&format!("{JOBS}/{job}")).await?.ok(200)["args"], json!({}), "{body}");
        post_text(&api, JOBS, body.replace("noop", "sleep")).await?.problem(422, "invalid_args");
    }
    Ok(())
}

/// The API may accept or refuse a job; a worker must be able to start every accepted job.
#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_discarded_for_its_args() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let accepted = submit_odd_jobs(&tenant.api).await?;
    assert!(accepted.len() > 20, "only {} were accepted", accepted.len());
    for id in &accepted {
        let job = app.system.state(tenant.id, *id).await?.context("an accepted job exists")?;
        let kind = app.system.registry.get(&job.kind).context("its kind is known")?;
        let args = job.args.as_ref().context("a single job includes its args")?;
        assert!(kind.can_decode(args), "{}: {}", job.kind, args.get());
    }
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(8, LEASE));
    for id in accepted {
        let job = eventually(PATIENCE + Duration::from_secs(30), "the job is final", async || {
            let job = app.system.state(tenant.id, id).await.ok()??;
            job.finalized_at.is_some().then_some(job)
        })
        .await;
        let errors = job.errors.unwrap_or_default().to_string();
        assert!(!errors.contains("args: "), "{}: {errors}", job.kind);
    }
    worker.stop().await?;
    scheduler.stop().await;
    Ok(())
}

/// Submits every member of two kinds with every odd value, in one batch; returns the ids of those
/// accepted.
async fn submit_odd_jobs(api: &ApiClient) -> Result<Vec<Uuid>> {
    let values = [
        "0",
        "1",
        "-1",
        "-0",
        "1.0",
        "1e0",
        "0.5",
        "1e400",
        "2",
        "100",
        "101",
        "255",
        "256",
        "65536",
        "18446744073709551616",
        "null",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#""x""#,
        r#""\u0000""#,
        r#""\ud800""#,
        r#""\ud83d\ude00""#,
        r#"{"port":9,"token":1}"#,
        r#"{"port":9,"token":1.0}"#,
        r#"{"port":9,"token":1,"token":2}"#,
        r#"{"port":70000,"token":1}"#,
    ];
    let mut jobs = Vec::new();
    for value in values {
        for member in ["stamp", "steps", "result_bytes", "other", "MS"] {
            jobs.push(format!(r#"{{"kind":"sleep","args":{{"ms":1,"{member}":{value}}}}}"#));
        }
        jobs.push(format!(r#"{{"kind":"noop","args":{{"pad":{value}}}}}"#));
        jobs.push(format!(r#"{{"kind":"noop","args":{{"pad":"",{}:{value}}}}}"#, r#""stamp""#));
        jobs.push(format!(r#"{{"kind":"fail","max_attempts":1,"args":{{"times":{value}}}}}"#));
        jobs.push(format!(r#"{{"kind":"noop","args":{value}}}"#));
    }
    let answer = post_text(api, "/api/v1/jobs/batch", format!(r#"{{"jobs":[{}]}}"#, jobs.join(","))).await?;
    let results = answer.ok(202)["results"].as_array().context("results")?;
    let id = |result: &Value| result["id"].as_str()?.parse().ok();
    Ok(results.iter().filter_map(id).collect())
}
