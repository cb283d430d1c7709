//! The own company, its tier and what that allows.

use anyhow::Result;
use serde_json::json;
use shared::authz::Role;
use tests::test_app::TestApp;
use uuid::Uuid;

const PATH: &str = "/api/v1/companies";

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_sees_its_own_company_with_its_limits_and_features() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.tenant("acme").await?, app.tenant("other").await?);
    let listed = acme.api.get(PATH).await?.ok(200).clone();
    let company = acme.api.get(&format!("{PATH}/{}", acme.id)).await?.ok(200).clone();
    assert_eq!(listed, json!({ "items": [company] }));
    assert_eq!((&company["slug"], &company["tier"]), (&json!("acme"), &json!("professional")));
    let limits = json!({ "requests_per_hour": 1_000, "api_calls_per_day": 100_000, "users": 5, "properties": 500 });
    assert_eq!(company["limits"], limits);
    assert_eq!(company["features"].as_array().map(Vec::len), Some(8));
    let feature = |name: &str, enabled: bool, lowest_tier: &str| json!({ "name": name, "enabled": enabled, "lowest_tier": lowest_tier });
    assert_eq!(company["features"][0], feature("api_access", true, "professional"));
    assert_eq!(company["features"][5], feature("sso", false, "enterprise"));

    tests::sql::execute(&app.system.urls.owner, "update tenants set tier = 'enterprise' where slug = 'acme'").await?;
    let company = acme.api.get(&format!("{PATH}/{}", acme.id)).await?.ok(200).clone();
    assert_eq!((&company["limits"]["users"], &company["features"][5]["enabled"]), (&json!(null), &json!(true)));

    for id in [other.id.to_string(), Uuid::max().to_string(), "acme".to_owned()] {
        acme.api.get(&format!("{PATH}/{id}")).await?.problem(404, "not_found");
        acme.api.patch(&format!("{PATH}/{id}"), &json!({ "name": "Mine" })).await?.problem(404, "not_found");
    }
    assert_eq!(other.api.get(&format!("{PATH}/{}", other.id)).await?.ok(200)["name"], "other");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_renames_the_company() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let viewer = app.signed_in(tenant, Role::Viewer, "viewer@example.com").await?;
    let path = format!("{PATH}/{tenant}");
    viewer.api.patch(&path, &json!({ "name": "Mine" })).await?.problem(403, "forbidden");
    for name in ["", "a\nb", &"ä".repeat(201)] {
        let refused = admin.api.patch(&path, &json!({ "name": name })).await?;
        refused.problem(422, "invalid_body");
        assert_eq!(refused.only_error().0, "/name");
    }
    for body in [json!({ "tier": "enterprise" }), json!({ "slug": "other" }), json!({ "name": "a", "suspended": true })]
    {
        admin.api.patch(&path, &body).await?.problem(422, "invalid_body");
    }
    let longest = "ä".repeat(200);
    for name in ["Acme & Co", &longest] {
        assert_eq!(admin.api.patch(&path, &json!({ "name": name })).await?.ok(200)["name"], name);
    }
    assert_eq!(admin.api.patch(&path, &json!({})).await?.ok(200)["name"], longest);
    assert_eq!(viewer.api.get(&path).await?.ok(200)["name"], longest);
    Ok(())
}
