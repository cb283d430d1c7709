//! Every operation of the OpenAPI document without a key, with keys of other scopes, and on another
//! tenant's resources.
//!
//! The cases derive from the document itself, so a new operation is either tested or fails this
//! test: [`SCOPES`] must list it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use axum::http::Method;
use serde_json::{Value, json};
use shared::authz::{Permission, Role};
use tests::test_app::{Answer, ApiClient, TestApp};
use uuid::Uuid;

use super::campaign;

/// No credential, or a credential in the path.
const PUBLIC: [&str; 19] = [
    "GET /.well-known/jwks.json",
    "GET /api/health",
    "GET /api/health/liveness",
    "GET /api/health/readiness",
    "GET /api/v1/auth/reset-password/{token}",
    "GET /api/v1/auth/verify-email/{token}",
    "GET /api/v1/unsubscribe/{token}",
    "POST /api/v1/auth/api-client/token",
    "POST /api/v1/auth/api-client/token/refresh",
    "POST /api/v1/auth/forgot-password",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/reset-password",
    "POST /api/v1/auth/reset-password/{token}",
    "POST /api/v1/auth/token",
    "POST /api/v1/auth/token/refresh",
    "POST /api/v1/auth/token/verify",
    "POST /api/v1/auth/verify-email",
    "POST /api/v1/auth/verify-email/{token}",
    "POST /api/v1/unsubscribe/{token}",
];

/// Operations for any valid credential, and those of them that are for users alone.
const ANY: [(&str, bool); 3] = [
    ("GET /api/v1/permissions/me", false),
    ("POST /api/v1/auth/logout", true),
    ("PUT /api/v1/users/me/password", true),
];

/// The scope that each other operation requires.
const SCOPES: &[(&str, &str)] = &[
    ("DELETE /api/v1/api-clients/{id}", "api_clients:revoke"),
    ("GET /api/v1/api-clients", "api_clients:read"),
    ("GET /api/v1/api-clients/{id}", "api_clients:read"),
    ("GET /api/v1/api-clients/{id}/uses", "api_clients:read"),
    ("POST /api/v1/api-clients", "api_clients:create"),
    ("POST /api/v1/api-clients/{id}/rotate-secret", "api_clients:create"),
    ("DELETE /api/v1/api-keys/{id}", "api_keys:revoke"),
    ("GET /api/v1/api-keys", "api_keys:read"),
    ("GET /api/v1/api-keys/{id}", "api_keys:read"),
    ("POST /api/v1/api-keys", "api_keys:create"),
    ("POST /api/v1/api-keys/{id}/rotate", "api_keys:create"),
    ("GET /api/v1/companies", "companies:read"),
    ("GET /api/v1/companies/{id}", "companies:read"),
    ("PATCH /api/v1/companies/{id}", "companies:write"),
    ("GET /api/v1/roles", "roles:read"),
    ("GET /api/v1/usage", "quotas:read"),
    ("GET /api/v1/users", "users:read"),
    ("GET /api/v1/users/{id}", "users:read"),
    ("PATCH /api/v1/users/{id}", "users:write"),
    ("POST /api/v1/users", "users:write"),
    ("POST /api/v1/users/{id}/invite", "users:write"),
    ("POST /api/v1/users/{id}/toggle_status", "users:write"),
    ("GET /api/v1/campaigns", "campaigns:read"),
    ("GET /api/v1/campaigns/{id}", "campaigns:read"),
    ("POST /api/v1/campaigns", "campaigns:write"),
    ("POST /api/v1/campaigns/{id}/cancel", "campaigns:send"),
    ("POST /api/v1/campaigns/{id}/leads", "campaigns:write"),
    ("POST /api/v1/campaigns/{id}/pause", "campaigns:send"),
    ("POST /api/v1/campaigns/{id}/preview", "campaigns:read"),
    ("POST /api/v1/campaigns/{id}/resume", "campaigns:send"),
    ("POST /api/v1/campaigns/{id}/send", "campaigns:send"),
    ("GET /api/v1/job-kinds", "jobs:read"),
    ("GET /api/v1/jobs", "jobs:read"),
    ("GET /api/v1/jobs/batch/{id}", "jobs:read"),
    ("GET /api/v1/jobs/{id}", "jobs:read"),
    ("GET /api/v1/jobs/{id}/events", "jobs:read"),
    ("GET /api/v1/jobs/{id}/explain", "jobs:read"),
    ("POST /api/v1/jobs", "jobs:create"),
    ("POST /api/v1/jobs/batch", "jobs:create"),
    ("POST /api/v1/jobs/cancel", "jobs:control"),
    ("POST /api/v1/jobs/retry", "jobs:control"),
    ("POST /api/v1/jobs/{id}/cancel", "jobs:control"),
    ("POST /api/v1/jobs/{id}/retry", "jobs:control"),
    ("DELETE /api/v1/suppressions/{id}", "campaigns:write"),
    ("GET /api/v1/suppressions", "campaigns:read"),
    ("GET /api/v1/suppressions/{id}", "campaigns:read"),
    ("POST /api/v1/suppressions", "campaigns:write"),
    ("DELETE /api/v1/webhook-endpoints/{id}", "webhooks:write"),
    ("GET /api/v1/webhook-endpoints", "webhooks:read"),
    ("GET /api/v1/webhook-endpoints/{id}", "webhooks:read"),
    ("GET /api/v1/webhook-endpoints/{id}/deliveries", "webhooks:read"),
    ("GET /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}", "webhooks:read"),
    ("PATCH /api/v1/webhook-endpoints/{id}", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints/{id}/deliveries/{delivery_id}/redeliver", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints/{id}/disable", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints/{id}/enable", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints/{id}/rotate-secret", "webhooks:write"),
    ("POST /api/v1/webhook-endpoints/{id}/test", "webhooks:write"),
];

struct Operation {
    name: String,
    method: Method,
    path: String,
    public: bool,
    media_type: Option<String>,
}

impl Operation {
    /// Sends the operation for the resource with this id, with the smallest valid body of its media
    /// type.
    async fn send(&self, api: &ApiClient, id: &str) -> Result<Answer> {
        self.send_within(api, id, id).await
    }

    /// Like `send`, for a resource nested in another.
    async fn send_within(&self, api: &ApiClient, id: &str, inner: &str) -> Result<Answer> {
        let path = self.path.replace("{id}", id).replace("{delivery_id}", inner).replace("{token}", id);
        let request = api.request(&self.method, &path);
        Answer::to(match self.media_type.as_deref() {
            None => request,
            Some(media_type) => {
                let body = if media_type == "text/csv" { "email\nada@example.com\n" } else { "{}" };
                request.header("content-type", media_type).body(body)
            }
        })
        .await
    }
}

/// All operations of the served document.
async fn operations(app: &TestApp) -> Result<Vec<Operation>> {
    let document = app.anonymous().get("/api/openapi.json").await?.ok(200).clone();
    let by_default = document["security"].as_array().is_some_and(|schemes| !schemes.is_empty());
    assert!(by_default, "operations need a credential unless declared public");
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("a path item is an object")? {
            let method: Method = method.to_uppercase().parse()?;
            let public = operation["security"] == serde_json::json!([{}]);
            let media_types = operation["requestBody"]["content"].as_object();
            let media_type = media_types.and_then(|content| content.keys().next().cloned());
            found.push(Operation { name: format!("{method} {path}"), method, path: path.clone(), public, media_type });
        }
    }
    Ok(found)
}

fn scopes() -> BTreeMap<&'static str, &'static str> {
    SCOPES.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_the_table_list_the_same_operations() -> Result<()> {
    let app = TestApp::start().await?;
    let operations = operations(&app).await?;
    let mut public: Vec<&str> = operations.iter().filter(|one| one.public).map(|one| one.name.as_str()).collect();
    let mut guarded: Vec<&str> = operations.iter().filter(|one| !one.public).map(|one| one.name.as_str()).collect();
    public.sort_unstable();
    guarded.sort_unstable();
    assert_eq!(public, PUBLIC, "operations without a credential are these and no others");
    let listed: BTreeSet<&str> = scopes().into_keys().chain(ANY.map(|(name, _)| name)).collect();
    assert_eq!(guarded, listed.into_iter().collect::<Vec<_>>(), "each operation has its scope here");
    for operation in operations.iter().filter(|one| !one.public) {
        let rest = operation.path.replace("{id}", "").replace("{delivery_id}", "");
        assert!(!rest.contains('{'), "{}: extend this test with a value for that parameter", operation.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_every_operation_is_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let unknown = Uuid::max().to_string();
    for operation in operations(&app).await? {
        let answer = operation.send(&app.anonymous(), &unknown).await?;
        if operation.public {
            assert_ne!(answer.status, 401, "{}", operation.name);
        } else {
            assert_eq!(answer.status, 401, "{}: {}", operation.name, answer.text);
            answer.problem(401, "unauthenticated");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_needs_its_scope_and_no_other() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let (operations, needed) = (operations(&app).await?, scopes());
    let unknown = Uuid::max().to_string();
    // One that no operation needs stands for all such.
    let tried: BTreeSet<&str> = needed.values().copied().chain(["estates:write"]).collect();
    for scope in tried {
        let with = app.client(&app.key(tenant, &[scope], None).await?.1);
        let others: Vec<&str> = Permission::all().map(Permission::as_str).filter(|other| *other != scope).collect();
        let without = app.client(&app.key(tenant, &others, None).await?.1);
        for operation in operations.iter().filter(|one| needed.contains_key(one.name.as_str())) {
            let (alone, rest) = (operation.send(&with, &unknown).await?, operation.send(&without, &unknown).await?);
            let needs_it = needed.get(operation.name.as_str()) == Some(&scope);
            assert_eq!(alone.status != 403, needs_it, "{} with {scope} alone: {}", operation.name, alone.text);
            assert_eq!(rest.status == 403, needs_it, "{} without {scope}: {}", operation.name, rest.text);
            let refused = if needs_it { rest } else { alone };
            let named = format!("the API key lacks the scope {}", needed[operation.name.as_str()]);
            assert_eq!(refused.problem(403, "forbidden")["detail"], named, "{}", operation.name);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_permissions_reaches_what_is_for_everybody_but_nothing_of_users() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let api = app.client(&app.key(tenant, &[], None).await?.1);
    for operation in operations(&app).await?.iter().filter(|one| !one.public) {
        let answer = operation.send(&api, &Uuid::max().to_string()).await?;
        let for_users = ANY.iter().find(|(name, _)| *name == operation.name).map(|(_, for_users)| *for_users);
        match for_users {
            None => drop(answer.problem(403, "forbidden")),
            Some(true) => assert!(matches!(answer.status, 403 | 422), "{}: {}", operation.name, answer.text),
            Some(false) => assert_eq!(answer.status, 200, "{}: {}", operation.name, answer.text),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_resources_are_not_found() -> Result<()> {
    let app = TestApp::start().await?;
    let (tenant, stranger) = (app.tenant("owner").await?, app.tenant("stranger").await?.api);
    let owner = tenant.api;
    let user = app.user(tenant.id, Role::Viewer, "ada@example.com").await?;
    let key = app.key(tenant.id, &["jobs:read"], None).await?.0;
    let client = json!({ "name": "client", "scopes": ["jobs:read"] });
    let client = owner.post("/api/v1/api-clients", &client).await?.ok(201)["client_id"].clone();
    let job = owner.post("/api/v1/jobs", &serde_json::json!({ "kind": "noop" })).await?.id();
    let (endpoint, delivery) = webhook(&owner).await?;
    let address = serde_json::json!({ "address": "ada@example.com" });
    let suppression = owner.post("/api/v1/suppressions", &address).await?.id();
    let paths = [
        format!("/api/v1/api-clients/{}", client.as_str().context("a client")?),
        format!("/api/v1/api-keys/{key}"),
        format!("/api/v1/users/{user}"),
        format!("/api/v1/companies/{}", tenant.id),
        format!("/api/v1/campaigns/{}", campaign(&owner).await?),
        format!("/api/v1/jobs/{job}"),
        format!("/api/v1/suppressions/{suppression}"),
        format!("/api/v1/webhook-endpoints/{endpoint}"),
    ];
    let mut before = Vec::new();
    for path in &paths {
        before.push(owner.get(path).await?.ok(200).clone());
    }
    let mut tried = 0;
    for operation in operations(&app).await?.iter().filter(|one| !one.public && one.path.contains("{id}")) {
        let Some(thing) = paths.iter().position(|path| operation.path.split('/').nth(3) == path.split('/').nth(3))
        else {
            anyhow::bail!("{}: extend this test with a value for its id", operation.name);
        };
        let id = paths[thing].rsplit('/').next().unwrap_or_default();
        let foreign = operation.send_within(&stranger, id, &delivery).await?;
        assert_eq!(foreign.status, 404, "{}: {}", operation.name, foreign.text);
        let unknown = operation.send(&stranger, &Uuid::max().to_string()).await?;
        assert_eq!(alike(&foreign), alike(&unknown), "{}: foreign and unknown ids differ", operation.name);
        let malformed = operation.send(&stranger, "not-an-id").await?;
        assert_eq!(alike(&foreign), alike(&malformed), "{}: a malformed id differs", operation.name);
        assert_eq!(owner.get(&paths[thing]).await?.ok(200), &before[thing], "{} changed something", operation.name);
        tried += 1;
    }
    assert!(tried >= 10, "only {tried} operations have an id");
    for list in [
        "/api/v1/jobs",
        "/api/v1/campaigns",
        "/api/v1/webhook-endpoints",
        "/api/v1/suppressions",
        "/api/v1/users",
        "/api/v1/api-clients",
    ] {
        assert_eq!(stranger.get(list).await?.ok(200)["items"], serde_json::json!([]), "{list}");
    }
    Ok(())
}

/// Handlers in one `routes!` get all its addresses, so a path could answer a method that its own
/// handlers do not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_outside_the_document_is_not_allowed() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let operations = operations(&app).await?;
    let listed: BTreeSet<&str> = operations.iter().map(|operation| operation.name.as_str()).collect();
    let paths: BTreeSet<&str> = operations.iter().map(|operation| operation.path.as_str()).collect();
    for path in paths {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let name = format!("{method} {path}");
            if !listed.contains(name.as_str()) {
                let other = Operation { name, method, path: path.to_owned(), public: false, media_type: None };
                let answer = other.send(&api, &Uuid::max().to_string()).await?;
                assert_eq!(answer.status, 405, "{}: {}", other.name, answer.text);
            }
        }
    }
    Ok(())
}

/// Creates an endpoint with a delivery.
async fn webhook(api: &ApiClient) -> Result<(String, String)> {
    let body = serde_json::json!({ "url": "https://example.com/" });
    let endpoint = api.post("/api/v1/webhook-endpoints", &body).await?.id();
    let delivery = api.act(&format!("/api/v1/webhook-endpoints/{endpoint}/test")).await?.id();
    Ok((endpoint.to_string(), delivery.to_string()))
}

/// A problem without the members that depend on the requested address.
fn alike(answer: &Answer) -> Value {
    let mut body = answer.problem(404, "not_found").clone();
    for own in ["instance", "request_id"] {
        body[own].take();
    }
    body
}
