//! Administering users: nobody gives or takes what they do not hold.

use anyhow::Result;
use serde_json::json;
use shared::authz::Role;
use tests::test_app::TestApp;

const PATH: &str = "/api/v1/users";
const SECRET: &str = "violet otters paint the harbour";

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_creates_a_user_who_signs_in() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let body = json!({ "email": "Ada@Example.com", "name": "Ada", "role": "manager", "password": SECRET });
    let created = admin.api.post(PATH, &body).await?;
    let user = created.ok(201);
    assert_eq!((&user["email"], &user["state"]), (&json!("Ada@example.com"), &json!("active")));
    assert!(!created.text.contains("password") && !created.text.contains("argon2"), "{}", created.text);
    assert_eq!(created.header("location"), format!("{PATH}/{}", created.id()));
    let pair =
        app.anonymous().post("/api/v1/auth/token", &json!({ "email": "ada@example.com", "password": SECRET })).await?;
    assert_eq!(pair.ok(200)["subject_id"], json!(created.id()));
    assert!(admin.api.get(&format!("{PATH}/{}", created.id())).await?.ok(200)["last_sign_in_at"].is_string());
    // The address in another case is the same address.
    let again = json!({ "email": "ADA@example.com", "name": "Ada", "role": "viewer", "password": SECRET });
    admin.api.post(PATH, &again).await?.problem(409, "conflict");
    for (query, count) in
        [("", 2), ("?role=manager", 1), ("?state=deactivated", 0), ("?email=ada@example.com", 1), ("?role=viewer", 0)]
    {
        let listed = admin.api.get(&format!("{PATH}{query}")).await?.ok(200).clone();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(count), "{query}: {listed}");
    }
    for query in ["?role=emperor", "?state=gone", "?email=nobody", "?limit=0"] {
        admin.api.get(&format!("{PATH}{query}")).await?.problem(400, "invalid_query");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_user_is_refused_with_all_reasons() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let body = json!({ "email": "nobody", "name": "", "role": "user", "password": "short" });
    let problem = admin.api.post(PATH, &body).await?.problem(422, "invalid_body").clone();
    let pointers: Vec<_> =
        problem["errors"].as_array().into_iter().flatten().map(|error| error["pointer"].as_str()).collect();
    assert_eq!(pointers, [Some("/email"), Some("/name"), Some("/password")]);
    for role in ["super_admin", "Admin", "root"] {
        let body = json!({ "email": "ada@example.com", "name": "Ada", "role": role, "password": SECRET });
        admin.api.post(PATH, &body).await?.problem(422, "invalid_body");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_or_takes_what_they_do_not_hold() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let manager = app.signed_in(tenant, Role::Manager, "manager@example.com").await?;
    let viewer = app.user(tenant, Role::Viewer, "viewer@example.com").await?;
    let auditor = app.user(tenant, Role::Auditor, "auditor@example.com").await?;
    let operator = app.user(tenant, Role::SuperAdmin, "operator@example.com").await?;
    let user = |role: &str| json!({ "email": "new@example.com", "name": "New", "role": role, "password": SECRET });
    for role in ["admin", "compliance_officer", "auditor"] {
        let refused = manager.api.post(PATH, &user(role)).await?;
        assert!(refused.problem(403, "forbidden")["permissions"].is_array(), "{role}");
        manager.api.patch(&format!("{PATH}/{viewer}"), &json!({ "role": role })).await?.problem(403, "forbidden");
    }
    for target in [admin.id, auditor, operator] {
        manager.api.patch(&format!("{PATH}/{target}"), &json!({ "role": "user" })).await?.problem(403, "forbidden");
        manager.api.patch(&format!("{PATH}/{target}"), &json!({ "name": "X" })).await?.problem(403, "forbidden");
        manager.api.act(&format!("{PATH}/{target}/toggle_status")).await?.problem(403, "forbidden");
    }
    admin.api.act(&format!("{PATH}/{operator}/toggle_status")).await?.problem(403, "forbidden");
    manager.api.patch(&format!("{PATH}/{viewer}"), &json!({ "role": "manager", "name": "V" })).await?.ok(200);
    manager.api.post(PATH, &user("manager")).await?.ok(201);
    // Nobody changes or deactivates themselves.
    manager.api.patch(&format!("{PATH}/{}", manager.id), &json!({ "role": "viewer" })).await?.problem(403, "forbidden");
    manager.api.act(&format!("{PATH}/{}/toggle_status", manager.id)).await?.problem(403, "forbidden");
    manager.api.patch(&format!("{PATH}/{}", manager.id), &json!({ "name": "M" })).await?.ok(200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_keeps_an_administrator() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let first = app.signed_in(tenant, Role::Admin, "first@example.com").await?;
    let second = app.signed_in(tenant, Role::Admin, "second@example.com").await?;
    let key = app.tenant("acme").await?.api;
    for api in [&first.api, &second.api] {
        super::becomes(api, 200).await;
    }
    // Each removes the other at the same time: one of them stays.
    let (paths, change) = ([first.id, second.id].map(|id| format!("{PATH}/{id}")), json!({ "role": "viewer" }));
    let (one, other) = tokio::join!(first.api.patch(&paths[1], &change), second.api.patch(&paths[0], &change));
    let mut statuses = [one?.status, other?.status];
    statuses.sort_unstable();
    // The second one is an administrator no more, or the last one.
    assert!(matches!(statuses, [200, 403 | 409]), "{statuses:?}");
    let admins = key.get(&format!("{PATH}?role=admin")).await?.ok(200).clone();
    assert_eq!(admins["items"].as_array().map(Vec::len), Some(1), "{admins}");
    let last = format!("{PATH}/{}", admins["items"][0]["id"].as_str().unwrap_or_default());
    key.patch(&last, &change).await?.problem(409, "conflict");
    key.act(&format!("{last}/toggle_status")).await?.problem(409, "conflict");
    Ok(())
}
