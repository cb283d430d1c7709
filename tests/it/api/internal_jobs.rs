//! Jobs that Rota creates for a campaign or a webhook endpoint: `jobs:control` alone does not
//! permit controlling them.

use anyhow::Result;
use serde_json::{Value, json};
use shared::authz::Permission;
use tests::test_app::{ApiClient, TestApp, TestTenant};
use uuid::Uuid;

use super::campaign;

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

fn counts(body: &Value) -> [u64; 3] {
    ["matched", "changed", "not_permitted"].map(|name| body[name].as_u64().unwrap_or(u64::MAX))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_by_one_they_need_the_scope_of_what_they_belong_to() -> Result<()> {
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
async fn by_filter_they_are_left_out_and_counted() -> Result<()> {
    let scene = Scene::new().await?;
    let (without, internal) = (scene.with(&["jobs:control"]).await?, scene.internal.len() as u64);
    let all = json!({ "filter": { "state": "available" } });
    let dry = json!({ "filter": { "state": "available" }, "dry_run": true });
    let path = format!("{JOBS}/cancel");
    assert_eq!(counts(without.post(&path, &dry).await?.ok(200)), [1, 0, internal]);
    assert_eq!(counts(without.post(&path, &all).await?.ok(200)), [1, 1, internal]);
    assert_eq!(counts(without.post(&path, &all).await?.ok(200)), [0, 0, internal]);
    for (kind, scope, _) in &scene.internal {
        let filter = json!({ "filter": { "state": "available", "kind": kind } });
        let refused = without.post(&path, &filter).await?;
        assert_eq!(refused.problem(403, "forbidden")["scope"], *scope);
        let retry = json!({ "filter": { "state": "cancelled", "kind": kind } });
        without.post(&format!("{JOBS}/retry"), &retry).await?.problem(403, "forbidden");
    }
    let mailer = scene.with(&["jobs:control", "campaigns:send"]).await?;
    assert_eq!(counts(mailer.post(&path, &all).await?.ok(200)), [3, 3, 1], "the endpoint's delivery remains");
    let again = json!({ "filter": { "state": "cancelled" } });
    assert_eq!(counts(without.post(&format!("{JOBS}/retry"), &again).await?.ok(200)), [1, 1, 3]);
    assert_eq!(counts(scene.tenant.api.post(&path, &all).await?.ok(200)), [2, 2, 0]);
    Ok(())
}

/// Internal jobs do not count towards the limit of a request that may not control them, however
/// many there are.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_uses_no_limit_up() -> Result<()> {
    let scene = Scene::new().await?;
    let mail = |_| json!({ "campaign_id": scene.campaign, "recipient_id": Uuid::max() });
    let mails = (0..20).map(|at| scene.app.system.job(scene.tenant.id, "send_campaign_email", &mail(at)));
    scene.app.system.enqueue(mails.collect()).await?;
    let body = json!({ "filter": { "state": "available" }, "limit": 5 });
    let without = scene.with(&["jobs:control"]).await?;
    assert_eq!(counts(without.post(&format!("{JOBS}/cancel"), &body).await?.ok(200)), [1, 1, 5]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_submits_one() -> Result<()> {
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
