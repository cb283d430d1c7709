//! Lists: filters, pagination, and the limits on page size.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::test_app::{Answer, ApiClient, TestApp};

const JOBS: &str = "/api/v1/jobs";

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["id"].as_str()).map(str::to_owned).collect()
}

/// The path in `<path>; rel="next"`.
fn next(link: &str) -> Option<&str> {
    link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")
}

async fn submit(api: &ApiClient, count: usize) -> Result<Vec<String>> {
    let jobs = json!({ "jobs": vec![json!({ "kind": "noop" }); count] });
    let answer = api.post("/api/v1/jobs/batch", &jobs).await?;
    let results = answer.ok(202)["results"].as_array().cloned().unwrap_or_default();
    Ok(results.iter().filter_map(|result| result["id"].as_str()).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn pagination_misses_and_repeats_nothing() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let mut expected = submit(&api, 23).await?;
    submit(&other, 3).await?;
    expected.reverse();
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, format!("{JOBS}?limit=5&kind=noop"));
    loop {
        let page = api.get(&path).await?;
        seen.extend(ids(page.ok(200)));
        pages += 1;
        ensure!(pages <= 5, "the pages do not end");
        // Jobs inserted meanwhile sort before the first page and shift nothing.
        submit(&api, 1).await?;
        let Some(link) = next(page.header("link")) else {
            assert_eq!(page.body.get("next_cursor"), None, "the last page has no next page");
            break;
        };
        assert!(link.ends_with(page.body["next_cursor"].as_str().unwrap_or("?")), "{link}");
        path = link.to_owned();
    }
    assert_eq!((pages, seen), (5, expected));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_restrict_the_list() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let api = tenant.api;
    let later = app.system.clock.now() + chrono::TimeDelta::hours(1);
    let noop = api.post(JOBS, &json!({ "kind": "noop" })).await?.id().to_string();
    let sleep =
        api.post(JOBS, &json!({ "kind": "sleep", "args": { "ms": 1 }, "run_at": later })).await?.id().to_string();
    let campaign = json!({ "campaign_id": uuid::Uuid::nil(), "generation": 1 });
    let campaign =
        app.system.enqueue(vec![app.system.job(tenant.id, "send_campaign", &campaign)]).await?[0].to_string();
    api.act(&format!("{JOBS}/{campaign}/cancel")).await?.ok(200);
    let cases: [(&str, Vec<&String>); 8] = [
        ("", vec![&campaign, &sleep, &noop]),
        ("?kind=noop", vec![&noop]),
        ("?queue=campaigns", vec![&campaign]),
        ("?state=scheduled", vec![&sleep]),
        ("?state=cancelled&kind=send_campaign", vec![&campaign]),
        ("?state=available&queue=default", vec![&noop]),
        ("?state=completed", vec![]),
        ("?kind=no_such_kind", vec![]),
    ];
    for (query, expected) in cases {
        let answer = api.get(&format!("{JOBS}{query}")).await?;
        assert_eq!(ids(answer.ok(200)).iter().collect::<Vec<_>>(), expected, "{query}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_query_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for list in [JOBS, "/api/v1/campaigns"] {
        for permitted in ["limit=1", "limit=200"] {
            api.get(&format!("{list}?{permitted}")).await?.ok(200);
        }
        for refused in ["limit=0", "limit=201", "limit=-1", "limit=x", "cursor=x", "cursor=", "sort=id", "tenant_id=1"]
        {
            let answer = api.get(&format!("{list}?{refused}")).await?;
            assert_eq!(answer.status, 400, "{refused}: {}", answer.text);
            answer.problem(400, "invalid_query");
        }
    }
    for refused in ["kind=%00", "queue=a%00b", "state=%00", "cursor=%00", "limit=1&kind=x%00"] {
        api.get(&format!("{JOBS}?{refused}")).await?.problem(400, "invalid_query");
    }
    let answer = api.get(&format!("{JOBS}?state=done")).await?;
    let detail = answer.problem(400, "invalid_query")["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("completed"), "the detail lists the states: {detail}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_without_query_parameters_refuses_them() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let document = app.anonymous().get("/api/openapi.json").await?;
    let mut refused = 0;
    for (path, item) in document.ok(200)["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("a path item is an object")? {
            let mut parameters = operation["parameters"].as_array().into_iter().flatten();
            if operation["security"].is_array() || parameters.any(|it| it["in"] == "query") {
                continue;
            }
            let method = method.to_uppercase().parse()?;
            let path = path.replace("{id}", &uuid::Uuid::nil().to_string());
            let answer = Answer::to(api.request(&method, &format!("{path}?priority=1"))).await?;
            let detail = answer.problem(400, "invalid_query")["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("priority"), "{method} {path}: {detail}");
            let answer = Answer::to(app.anonymous().request(&method, &format!("{path}?priority=1"))).await?;
            answer.problem(401, "unauthenticated");
            refused += 1;
        }
    }
    assert!(refused > 20, "only {refused} operations were tried");
    let body = json!({ "kind": "noop", "args": {} });
    api.post(&format!("{JOBS}?priority=1"), &body).await?.problem(400, "invalid_query");
    api.post(&format!("{JOBS}?"), &body).await?.ok(202);
    // Health checks and links in mails may get parameters appended in transit.
    app.anonymous().get("/api/health/liveness?now=1").await?.ok(200);
    Ok(())
}
