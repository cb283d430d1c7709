//! Large values: the limit on args on every route that takes them, and what a page omits.

use anyhow::Result;
use serde_json::{Value, json};
use tests::test_app::{ApiClient, TestApp};

use crate::api::{LEASE, draft, job_in_state};

const JOBS: &str = "/api/v1/jobs";
const LIMIT: usize = 64 * 1024;

/// Args of `noop` that are this many bytes long when sent.
fn args(bytes: usize) -> Value {
    let around = json!({ "pad": "" }).to_string().len();
    json!({ "pad": "x".repeat(bytes - around) })
}

async fn listed(api: &ApiClient, id: &Value) -> Result<Value> {
    let page = api.get(&format!("{JOBS}?limit=200")).await?;
    let items = page.ok(200)["items"].as_array().cloned().unwrap_or_default();
    Ok(items.into_iter().find(|item| item["id"] == *id).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn args_are_limited_to_64_kib_on_every_route() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let job = |bytes| json!({ "kind": "noop", "args": args(bytes) });
    api.post(JOBS, &job(LIMIT)).await?.ok(202);
    let refused = api.post(JOBS, &job(LIMIT + 1)).await?;
    refused.problem(422, "invalid_args");
    assert_eq!(refused.only_error().0, "/args");

    let batch = api.post(&format!("{JOBS}/batch"), &json!({ "jobs": [job(LIMIT), job(LIMIT + 1)] })).await?;
    let results = &batch.ok(202)["results"];
    assert_eq!((&results[0]["status"], &results[1]["code"]), (&json!("accepted"), &json!("invalid_args")), "{results}");
    assert_eq!(results[1]["errors"][0]["pointer"], "/args");
    let completed_by = |bytes| json!({ "jobs": [{ "kind": "noop" }], "on_complete": job(bytes) });
    api.post(&format!("{JOBS}/batch"), &completed_by(LIMIT)).await?.ok(202);
    let refused = api.post(&format!("{JOBS}/batch"), &completed_by(LIMIT + 1)).await?;
    refused.problem(422, "invalid_args");
    assert_eq!(refused.only_error().0, "/on_complete/args");
    Ok(())
}

/// A list of tiny items takes many times its size in memory, so parsing stops at the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_a_body_has_a_limit() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let many = json!({ "jobs": vec![json!({ "kind": "" }); 100_000] });
    assert_eq!(
        api.post(&format!("{JOBS}/batch"), &many).await?.problem(422, "invalid_body")["errors"][0]["pointer"],
        "/jobs"
    );
    let after = json!({ "kind": "noop", "after": vec![""; 400_000] });
    assert_eq!(api.post(JOBS, &after).await?.problem(422, "invalid_body")["errors"][0]["pointer"], "/after");
    let endpoint = json!({ "url": "https://example.com/", "kinds": vec![""; 400_000] });
    let refused = api.post("/api/v1/webhook-endpoints", &endpoint).await?;
    assert_eq!(refused.problem(422, "invalid_body")["errors"][0]["pointer"], "/kinds");
    // A client's input is not returned in full.
    let refused = api.post(JOBS, &json!({ "kind": "noop", "priority": "x".repeat(1 << 20) })).await?;
    refused.problem(422, "invalid_body");
    assert!(refused.text.len() < 4_000, "{}", refused.text.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_jobs_omits_large_values_and_marks_them() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let (_scheduler, _worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    for (bytes, shown) in [(1_024, true), (1_025, false), (60_000, false)] {
        let id = json!(api.post(JOBS, &json!({ "kind": "noop", "args": args(bytes) })).await?.id());
        let item = listed(&api, &id).await?;
        assert_eq!(item["args"] == args(bytes), shown, "{bytes}: {item}");
        assert_eq!(item.get("args_omitted"), (!shown).then_some(&json!(true)), "{bytes}");
        let whole = api.get(&format!("{JOBS}/{}", id.as_str().unwrap_or_default())).await?;
        assert_eq!(whole.ok(200)["args"], args(bytes));
        assert!(whole.body.get("args_omitted").is_none());
    }
    for (bytes, shown) in [(1_024, true), (1_025, false), (60_000, false)] {
        let body = json!({ "kind": "sleep", "args": { "ms": 0, "result_bytes": bytes } });
        let id = api.post(JOBS, &body).await?.id();
        assert!(job_in_state(&api, id, "completed").await["result"].is_string());
        let item = listed(&api, &json!(id)).await?;
        assert_eq!(item["result"].is_string(), shown, "{bytes}: {item}");
        assert_eq!(item.get("result_omitted"), (!shown).then_some(&json!(true)), "{bytes}");
    }
    Ok(())
}

/// With the largest values in every row the response is small, and the next page begins where this
/// one ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_largest_jobs_is_small() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let jobs: Vec<Value> = (0..30).map(|_| json!({ "kind": "noop", "args": args(LIMIT) })).collect();
    for _ in 0..7 {
        assert_eq!(api.post(&format!("{JOBS}/batch"), &json!({ "jobs": jobs })).await?.ok(202)["accepted"], 30);
    }
    let (mut path, mut seen) = (format!("{JOBS}?limit=200"), 0);
    loop {
        let page = api.get(&path).await?;
        page.ok(200);
        assert!(page.text.len() <= 1 << 20, "{}", page.text.len());
        seen += page.body["items"].as_array().map_or(0, Vec::len);
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        path = format!("{JOBS}?limit=200&cursor={cursor}");
    }
    assert_eq!(seen, 210);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_campaigns_omits_large_texts_and_a_senders_name_has_a_limit() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let campaign = |text: usize, name: usize| {
        let mut draft = draft();
        draft["text"] = "x".repeat(text).into();
        draft["html"] = "y".repeat(text).into();
        draft["from"]["name"] = "n".repeat(name).into();
        draft
    };
    for (text, shown) in [(1_024, true), (1_025, false), (200_000, false)] {
        let made = api.post("/api/v1/campaigns", &campaign(text, 200)).await?;
        assert_eq!(made.ok(201)["text"].as_str().map(str::len), Some(text));
        let page = api.get("/api/v1/campaigns?limit=1").await?;
        let item = &page.ok(200)["items"][0];
        for member in ["text", "html"] {
            assert_eq!(item[member].is_string(), shown, "{text} {member}");
            assert_eq!(item.get(format!("{member}_omitted")), (!shown).then_some(&json!(true)), "{text} {member}");
        }
        assert_eq!(item["subject"], "Hello {{ first_name }}");
        assert!(page.text.len() < 4_096, "{}", page.text.len());
    }
    let refused = api.post("/api/v1/campaigns", &campaign(10, 201)).await?;
    refused.problem(422, "invalid_body");
    assert_eq!(refused.only_error().0, "/from/name");
    Ok(())
}
