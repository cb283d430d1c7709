//! Slow uploads: the limit per tenant, and that none of them holds a database connection.

use anyhow::Result;
use futures::stream;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tests::{
    eventually::eventually,
    streamed_body::streamed_body,
    test_app::{Answer, ApiClient, TestApp},
};
use tokio::{sync::mpsc, task::JoinHandle};
use uuid::Uuid;

use crate::api::{PATIENCE, draft};

/// An upload that lasts until its sender is dropped.
struct Slow {
    lines: mpsc::UnboundedSender<String>,
    answer: JoinHandle<Result<Answer>>,
}

impl Slow {
    async fn begin(api: &ApiClient, campaign: Uuid) -> Self {
        let (lines, coming) = mpsc::unbounded_channel::<String>();
        let sent = std::sync::Arc::new(tokio::sync::Notify::new());
        let asked = std::sync::Arc::clone(&sent);
        let body = stream::unfold((coming, asked), |(mut coming, asked)| async move {
            // hyper polls for the next piece once it has taken the previous one.
            asked.notify_one();
            coming.recv().await.map(|line| (line, (coming, asked)))
        });
        let body = streamed_body(body);
        let (api, path) = (api.clone(), format!("/api/v1/campaigns/{campaign}/leads"));
        let answer = tokio::spawn(async move { api.upload(&path, body).await });
        lines.send("email,first_name\n".to_owned()).expect("the upload reads");
        sent.notified().await;
        Self { lines, answer }
    }

    /// Two running uploads that use up the tenant's limit, and the response to a third. Retried
    /// until that holds: the third upload counts towards the limit while it is admitted, and may
    /// then displace the second.
    async fn begin_two(api: &ApiClient, campaign: Uuid, third: &'static str) -> (Self, Self, Answer) {
        eventually(PATIENCE, "two uploads use up the limit", async || {
            let (first, second) = (Self::begin(api, campaign).await, Self::begin(api, campaign).await);
            let answer = api.upload(&format!("/api/v1/campaigns/{campaign}/leads"), third).await.ok()?;
            let both = !first.answer.is_finished() && !second.answer.is_finished();
            (both && answer.status == 429).then_some((first, second, answer))
        })
        .await
    }

    async fn finish(self) -> Result<Answer> {
        drop(self.lines);
        self.answer.await?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_two_uploads_at_a_time_and_none_holds_a_connection() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, other) = (app.tenant("acme").await?.api, app.tenant("other").await?.api);
    let campaign = api.post("/api/v1/campaigns", &draft()).await?.id();
    let path = format!("/api/v1/campaigns/{campaign}/leads");
    let csv = "email,first_name\nada@example.com,Ada\n";
    let (first, second, refused) = Slow::begin_two(&api, campaign, csv).await;
    assert_eq!(refused.problem(429, "too_many_in_flight")["limit"], 2);
    assert!(!refused.header("retry-after").is_empty());

    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    // Other transactions of the API are idle between two statements only briefly; one that waits
    // for a client stays idle.
    eventually(PATIENCE, "no transaction waits for a client", async || {
        let idle = "select count(*) from pg_stat_activity \
                    where datname = current_database() and state = 'idle in transaction'";
        let idle: i64 = sqlx::query_scalar(idle).fetch_one(&mut owner).await.ok()?;
        (idle == 0).then_some(())
    })
    .await;

    let foreign = other.post("/api/v1/campaigns", &draft()).await?.id();
    other.upload(&format!("/api/v1/campaigns/{foreign}/leads"), csv).await?.ok(200);

    first.lines.send("bob@example.com,Bob\n".to_owned()).expect("the upload reads");
    assert_eq!(first.finish().await?.ok(200)["accepted"], 1, "a slow upload is imported once it is complete");
    api.upload(&path, csv).await?.ok(200);
    // An aborted upload frees its permit as well.
    second.answer.abort();
    drop(second);
    Slow::begin_two(&api, campaign, csv).await;
    Ok(())
}

/// The campaign's state is checked again once the file is complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_sent_during_an_upload_takes_no_more_leads() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let campaign = crate::api::campaign(&api).await?;
    let slow = Slow::begin(&api, campaign).await;
    slow.lines.send("bob@example.com,Bob\n".to_owned()).expect("the upload reads");
    api.post(&format!("/api/v1/campaigns/{campaign}/send"), &json!({})).await?.ok(202);
    slow.finish().await?.problem(409, "conflict");
    let shown = api.get(&format!("/api/v1/campaigns/{campaign}")).await?;
    let progress = &shown.ok(200)["progress"];
    assert_eq!(progress["pending"].as_i64().zip(progress["queued"].as_i64()).map(|(a, b)| a + b), Some(1));
    Ok(())
}

/// A tenant's requests wait for the tenant's share of the connections; other tenants do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_transactions_leave_half_of_the_pool_to_others() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?, app.tenant("other").await?);
    let mut held = Vec::new();
    loop {
        match app.system.tenants.begin(acme.id).await {
            Ok(transaction) => held.push(transaction),
            Err(error) => {
                assert!(shared::db::is_share_in_use(&error), "{error}");
                break;
            }
        }
    }
    let refused = acme.api.get("/api/v1/jobs").await?;
    refused.problem(429, "too_many_in_flight");
    assert_eq!(refused.header("retry-after"), "1");
    other.api.get("/api/v1/jobs").await?.ok(200);
    held.pop();
    acme.api.get("/api/v1/jobs").await?.ok(200);
    Ok(())
}
