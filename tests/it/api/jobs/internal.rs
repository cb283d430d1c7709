//! Jobs that Rota creates for a campaign, a webhook endpoint or an account: `jobs:control` alone does not
//! permit controlling them.

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::authz::Permission;
use tests::test_app::{ApiClient, TestApp, TestTenant};
use uuid::Uuid;

use crate::api::campaign;

const JOBS: &str = "/api/v1/jobs";

/// A tenant with a job of each internal kind and a job of a public kind; none of them runs.
struct Scene {
    app: TestApp,
    tenant: TestTenant,
    campaign: Uuid,
    /// The kind, the required scope, and the id of a job.
    internal: Vec<(String, &'static str, Uuid)>,
    own: Uuid,
}

impl Scene {
    async fn new() -> Result<Self> {
        let app = TestApp::start().await?;
        let tenant = app.tenant("acme").await?;
        let campaign = campaign(&tenant.api).await?;
        tenant.api.post(&format!("/api/v1/campaigns/{campaign}/send"), &json!({})).await?.ok(202);
        let endpoint = tenant
            .api
            .post("/api/v1/webhook-endpoints", &json!({ "url": "https://example.com/", "events": ["job.completed"] }))
            .await?
            .id();
        tenant.api.act(&format!("/api/v1/webhook-endpoints/{endpoint}/test")).await?.ok(202);
        let mail = json!({ "campaign_id": campaign, "recipient_id": Uuid::max() });
        app.system.enqueue(vec![app.system.job(tenant.id, "send_campaign_email", &mail)]).await?;
        let resumption = json!({ "campaign_id": campaign, "generation": 0 });
        app.system.enqueue(vec![app.system.job(tenant.id, "resume_campaign", &resumption)]).await?;
        let account = json!({ "user_id": Uuid::max(), "purpose": "reset_password" });
        app.system.enqueue(vec![app.system.job(tenant.id, "send_account_mail", &account)]).await?;
        let own = tenant.api.post(JOBS, &json!({ "kind": "noop" })).await?.id();
        let mut internal = Vec::new();
        for kind in app.system.registry.iter().filter(|kind| kind.internal) {
            let listed = tenant.api.get(&format!("{JOBS}?kind={}", kind.name)).await?;
            let job = listed.ok(200)["items"][0]["id"].as_str().and_then(|id| id.parse().ok());
            let job = job.unwrap_or_else(|| panic!("extend this test: nothing creates a job of kind {}", kind.name));
            internal.push((kind.name.to_owned(), kind.control.map_or("none", Permission::as_str), job));
        }
        Ok(Self { app, tenant, campaign, internal, own })
    }

    async fn with(&self, scopes: &[&str]) -> Result<ApiClient> {
        Ok(self.app.client(&self.app.key(self.tenant.id, scopes, None).await?.1))
    }
}

/// The response to a bulk action.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Counts {
    matched: u64,
    changed: u64,
    not_permitted: u64,
}

/// Cancels or retries all jobs that match the filter of `body`.
async fn bulk(api: &ApiClient, action: &str, body: &Value) -> Result<Counts> {
    Ok(Counts::deserialize(api.post(&format!("{JOBS}/{action}"), body).await?.ok(200))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_internal_job_needs_the_scope_of_its_owner() -> Result<()> {
    let scene = Scene::new().await?;
    let without = scene.with(&["jobs:control"]).await?;
    for (kind, scope, job) in &scene.internal {
        let with = scene.with(&["jobs:control", scope]).await?;
        for action in ["cancel", "retry"] {
            let refused = without.act(&format!("{JOBS}/{job}/{action}")).await?;
            let problem = refused.problem(403, "forbidden");
            assert_eq!(problem["scope"], *scope, "{kind}");
            assert!(
                problem["detail"].as_str().is_some_and(|it| it.contains(kind) && it.contains(scope)),
                "{}",
                refused.text
            );
            with.act(&format!("{JOBS}/{job}/{action}")).await?.ok(200);
        }
    }
    assert_eq!(
        scene.tenant.api.get(&format!("/api/v1/campaigns/{}", scene.campaign)).await?.ok(200)["state"],
        "sending"
    );
    without.act(&format!("{JOBS}/{}/cancel", scene.own)).await?.ok(200);
    without.act(&format!("{JOBS}/{}/cancel", Uuid::max())).await?.problem(404, "not_found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_skips_internal_jobs_and_counts_them() -> Result<()> {
    let scene = Scene::new().await?;
    let (without, internal) = (scene.with(&["jobs:control"]).await?, scene.internal.len() as u64);
    let all = json!({ "filter": { "state": "available" } });
    let dry = json!({ "filter": { "state": "available" }, "dry_run": true });
    let path = format!("{JOBS}/cancel");
    assert_eq!(bulk(&without, "cancel", &dry).await?, Counts { matched: 1, changed: 0, not_permitted: internal });
    assert_eq!(bulk(&without, "cancel", &all).await?, Counts { matched: 1, changed: 1, not_permitted: internal });
    assert_eq!(bulk(&without, "cancel", &all).await?, Counts { matched: 0, changed: 0, not_permitted: internal });
    for (kind, scope, _) in &scene.internal {
        let filter = json!({ "filter": { "state": "available", "kind": kind } });
        let refused = without.post(&path, &filter).await?;
        assert_eq!(refused.problem(403, "forbidden")["scope"], *scope);
        let retry = json!({ "filter": { "state": "cancelled", "kind": kind } });
        without.post(&format!("{JOBS}/retry"), &retry).await?.problem(403, "forbidden");
    }
    let mailer = scene.with(&["jobs:control", "campaigns:send"]).await?;
    assert_eq!(
        bulk(&mailer, "cancel", &all).await?,
        Counts { matched: 3, changed: 3, not_permitted: 2 },
        "the endpoint's delivery and the account's mail remain"
    );
    let again = json!({ "filter": { "state": "cancelled" } });
    assert_eq!(bulk(&without, "retry", &again).await?, Counts { matched: 1, changed: 1, not_permitted: 3 });
    assert_eq!(bulk(&scene.tenant.api, "cancel", &all).await?, Counts { matched: 3, changed: 3, not_permitted: 0 });
    Ok(())
}

/// Internal jobs do not count towards the limit of a request that may not control them, however
/// many there are.
#[tokio::test(flavor = "multi_thread")]
async fn skipped_internal_jobs_do_not_count_towards_the_limit() -> Result<()> {
    let scene = Scene::new().await?;
    let mail = |_| json!({ "campaign_id": scene.campaign, "recipient_id": Uuid::max() });
    let mails = (0..20).map(|at| scene.app.system.job(scene.tenant.id, "send_campaign_email", &mail(at)));
    scene.app.system.enqueue(mails.collect()).await?;
    let body = json!({ "filter": { "state": "available" }, "limit": 5 });
    let without = scene.with(&["jobs:control"]).await?;
    assert_eq!(bulk(&without, "cancel", &body).await?, Counts { matched: 1, changed: 1, not_permitted: 5 });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_internal_kind_cannot_be_submitted() -> Result<()> {
    let scene = Scene::new().await?;
    for (kind, _, job) in &scene.internal {
        let args = scene.tenant.api.get(&format!("{JOBS}/{job}")).await?.ok(200)["args"].clone();
        let body = json!({ "kind": kind, "args": args });
        scene.tenant.api.post(JOBS, &body).await?.problem(422, "unknown_kind");
        let batch = json!({ "jobs": [{ "kind": "noop" }], "on_complete": body });
        scene.tenant.api.post(&format!("{JOBS}/batch"), &batch).await?.problem(422, "unknown_kind");
    }
    let kinds = scene.tenant.api.get("/api/v1/job-kinds").await?;
    for (kind, ..) in &scene.internal {
        assert!(!kinds.ok(200)["items"].to_string().contains(&format!("{kind:?}")), "{kind}");
    }
    Ok(())
}
