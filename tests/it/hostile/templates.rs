//! Templates and documents: A has them compiled, rendered and validated at the highest possible
//! cost.

use std::{ops::Range, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    installation::{Answer, ApiClient, Installation, InstallationOptions},
};
use uuid::Uuid;

use super::unharmed;

const PATIENCE: Duration = Duration::from_secs(90);
/// The allowed memory growth of an attacked process.
const MAX_GROWTH_BYTES: u64 = 100 * 1024 * 1024;
const AT_A_TIME: usize = 8;

/// Each template costs the maximum that one mail may cost.
const COSTLY: &[&str] = &[
    "{% for x in t|split %}{% for y in t|split %}{{ t|upper|lower|title|replace('a', 'b')|length }}{% endfor %}{% endfor %}",
    "{% for a in t %}{% for b in t %}{% if t == t and n in t %}{% endif %}{% endfor %}{% endfor %}",
    "{% for x in t|split %}{{ t|split('')|sort|unique|join|length }}{% endfor %}",
    "{% for x in t|split %}{{ t }}{% endfor %}",
];

/// Templates that make the parser recurse to an arbitrary depth.
fn deep(bytes: usize) -> Vec<String> {
    let around = |open: &str, close: &str| {
        let times = bytes / (open.len() + close.len());
        format!("{{{{ {}a{} }}}}", open.repeat(times), close.repeat(times))
    };
    let mut sources: Vec<String> = ["-", "not ", "a+", "a~", "a in ", "a if a else ", "1-", "a and "]
        .iter()
        .map(|open| around(open, ""))
        .collect();
    sources.extend([".b", "[0]", "|d", " is defined", "()", "[1:]"].iter().map(|close| around("", close)));
    sources
        .extend([("(", ")"), ("[", "]"), ("a|d(", ")"), ("a[", "]")].iter().map(|(open, close)| around(open, close)));
    sources.push(format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(bytes / 12)));
    sources.push("{% if a %}".repeat(bytes / 10));
    sources.push("{% for a in a %}".repeat(bytes / 16));
    sources.push(format!("{{{{ {} }}}}", "n".repeat(bytes)));
    sources
}

fn draft(subject: &str, text: &str) -> Value {
    json!({ "name": "A", "subject": subject, "text": text, "from": { "email": "news@rota.example" } })
}

async fn campaign(tenant: &ApiClient, text: &str, leads_csv: &str) -> Result<String> {
    let mut body = draft("Hello", text);
    body["leads_csv"] = leads_csv.into();
    let campaign = tenant.post("campaigns", &body).await?.expect(201)?;
    Ok(format!("campaigns/{}", campaign["id"].as_str().context("an id")?))
}

/// Variables of the maximum size.
fn variables() -> Value {
    json!({ "t": "ab ".repeat(20_000), "n": "b".repeat(5_000) })
}

fn leads(numbers: Range<usize>, value: &str) -> String {
    let rows: Vec<String> = numbers.map(|row| format!("lead{row}@example.com,{value},b\n")).collect();
    format!("email,t,n\n{}", rows.concat())
}

/// Jobs that ran more than once, except for those that repeatedly check whether a campaign is
/// complete.
async fn repeated(rota: &Installation) -> Result<i64> {
    let mut owner = PgConnection::connect(&rota.postgres.urls().owner).await?;
    let count = "select count(*) from jobs where kind <> 'send_campaign' and attempt > 1";
    Ok(sqlx::query_scalar(count).fetch_one(&mut owner).await?)
}

fn ensure_answered(answer: &Answer) -> Result<()> {
    ensure!(matches!(answer.status.as_u16(), 200 | 201 | 422 | 429 | 503), "{}: {}", answer.status, answer.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn costly_previews_and_drafts_slow_only_their_tenant() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    let mut paths = Vec::new();
    for source in COSTLY {
        paths.push(campaign(&tenant, source, &leads(0..1, "a")).await?);
    }
    let before = rota.api.process.peak_rss_bytes()?;
    let many = "{{ t|default('x') }}{% if t == n %}{% endif %}".repeat(400);
    unharmed(&mut rota, async || {
        for _ in 0..2 {
            let previews = (0..AT_A_TIME).map(async |number| {
                let body = json!({ "variables": variables() });
                tenant.post(&format!("{}/preview", paths[number % paths.len()]), &body).await
            });
            let drafts = (0..AT_A_TIME / 4).map(async |_| tenant.post("campaigns", &draft("Hello", &many)).await);
            for answer in join_all(previews).await.into_iter().chain(join_all(drafts).await) {
                // A request may time out on A's side before it is served; a crashed API is detected
                // below.
                answer.map_or(Ok(()), |answer| ensure_answered(&answer))?;
            }
        }
        Ok(())
    })
    .await?;
    let growth = rota.api.process.peak_rss_bytes()? - before;
    ensure!(growth < MAX_GROWTH_BYTES, "the API grew by {} MiB", growth >> 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_template_stops_the_api() -> Result<()> {
    let mut rota =
        Installation::start_with(InstallationOptions { workers: 0, ..InstallationOptions::default() }).await?;
    let id = campaign(&rota.tenant, "Hello", &leads(0..1, "a")).await?;
    let mut owner = PgConnection::connect(&rota.postgres.urls().owner).await?;
    for source in deep(200_000).into_iter().chain(deep(4_750)) {
        rota.tenant.post("campaigns", &draft("Hello", &source)).await?.expect(422)?;
        rota.tenant.post("campaigns", &draft(&source, "Hello")).await?.expect(422)?;
        // Such a template can be stored already if it was accepted by a release without these
        // limits.
        sqlx::query("update campaigns set text_body = $1").bind(&source).execute(&mut owner).await?;
        let problem = rota.tenant.post(&format!("{id}/preview"), &json!({})).await?.expect(422)?;
        ensure!(problem.to_string().len() < 2_000, "the problem must not contain the template: {problem}");
        rota.tenant.post(&format!("{id}/send"), &json!({})).await?.expect(422)?;
    }
    for deep in [format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), "{\"a\":".repeat(100_000)] {
        for path in ["jobs", "jobs/batch", "campaigns", &format!("{id}/preview")] {
            let status = rota.tenant.post_text(path, &deep).await?.status;
            ensure!(status.is_client_error(), "{path}: {status}");
        }
        let args = format!("{{\"kind\":\"noop\",\"args\":{{\"a\":{deep}}}}}");
        let status = rota.tenant.post_text("jobs", &args).await?.status;
        ensure!(status.is_client_error(), "args: {status}");
    }
    ensure!(rota.ended_by_themselves()?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn leads_that_cost_more_than_the_first_one_cost_no_lease() -> Result<()> {
    let mut rota = Installation::start().await?;
    let tenant = rota.tenant.clone();
    let costly = leads(1..13, &"ab ".repeat(2_600));
    let running: Vec<Value> = (0..10).map(|_| json!({ "kind": "sleep", "args": { "ms": 4_000 } })).collect();
    let running = rota.neighbour.post("jobs/batch", &json!({ "jobs": running })).await?.expect(202)?;
    ensure!(running["accepted"] == 10, "{running}");
    unharmed(&mut rota, async || {
        let path = campaign(&tenant, COSTLY[0], &leads(0..1, "a")).await?;
        tenant.upload(&format!("{path}/leads"), &costly).await?.expect(200)?;
        tenant.send_campaign(&path).await.map(drop)
    })
    .await?;
    eventually(PATIENCE, "all jobs have ended", async || (rota.open_jobs().await.ok()? == 0).then_some(())).await;
    ensure!(repeated(&rota).await? == 0, "a lease was lost");
    let jobs = rota.jobs().await?;
    let count = |kind: &str, state: &str| jobs.get(&(kind.to_owned(), state.to_owned())).copied().unwrap_or_default();
    ensure!(count("sleep", "completed") == 10, "{jobs:?}");
    ensure!(count("send_campaign_email", "discarded") > 0, "the costly leads fail in their first attempt: {jobs:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_an_earlier_release_fails_its_mails_and_no_worker() -> Result<()> {
    let mut rota = Installation::start().await?;
    let mut owner = PgConnection::connect(&rota.postgres.urls().owner).await?;
    let mut paths = Vec::new();
    for source in deep(200_000) {
        let path = campaign(&rota.tenant, "Hello", &leads(0..2, "a")).await?;
        let id: Uuid = path.trim_start_matches("campaigns/").parse()?;
        let send_at = Clock::system().now() + Duration::from_hours(1);
        rota.tenant.post(&format!("{path}/send"), &json!({ "send_at": send_at })).await?.expect(202)?;
        sqlx::query("update campaigns set text_body = $1 where id = $2")
            .bind(&source)
            .bind(id)
            .execute(&mut owner)
            .await?;
        paths.push(path);
    }
    sqlx::query("update jobs set run_at = now() where kind = 'send_campaign'").execute(&mut owner).await?;
    for path in paths {
        let progress = rota.tenant.completed(&path, PATIENCE).await;
        ensure!((&progress["failed"], &progress["sent"]) == (&json!(2), &json!(0)), "{progress}");
    }
    ensure!(rota.ended_by_themselves()?.is_empty());
    ensure!(repeated(&rota).await? == 0, "a template that cannot be compiled is not retried");
    Ok(())
}
