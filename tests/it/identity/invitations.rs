//! Users who set their first password with the link of an invitation.

use std::time::Duration;

use anyhow::Result;
use jobs::account_links::{AccountLink, LinkPurpose};
use serde_json::{Value, json};
use shared::{
    authz::{Permission, Role},
    clock::Clock,
    store::accounts,
};
use tests::test_app::{Answer, TestApp};

use super::mails::{jobs, mail, pass_pause};

const LEASE: Duration = Duration::from_secs(5);
const PATH: &str = "/api/v1/users";
const SECRET: &str = "violet otters paint the harbour";

fn ada(role: &str) -> Value {
    json!({ "email": "ada@example.com", "name": "Ada", "role": role })
}

async fn accept(app: &TestApp, token: &str) -> Result<Answer> {
    let body = json!({ "token": token, "new_password": SECRET });
    app.anonymous().post("/api/v1/auth/reset-password", &body).await
}

async fn sign_in(app: &TestApp) -> Result<Answer> {
    app.anonymous().post("/api/v1/auth/token", &json!({ "email": "ada@example.com", "password": SECRET })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invited_user_sets_a_password_and_signs_in() -> Result<()> {
    let app = TestApp::start().await?;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let created = admin.api.post(PATH, &ada("manager")).await?;
    assert_eq!(created.ok(201)["state"], "invited");
    let first = mail(&app, "ada@example.com", 1).await;
    assert!(first.text.contains("Subject: You are invited to acme\r\n"), "{}", first.text);
    let listed = admin.api.get(&format!("{PATH}?state=invited")).await?.ok(200).clone();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));

    let again = format!("{PATH}/{}/invite", created.id());
    let refused = admin.api.act(&again).await?;
    refused.problem(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), "300");
    pass_pause(&app).await?;
    assert_eq!(admin.api.act(&again).await?.ok(202)["state"], "invited");
    let second = mail(&app, "ada@example.com", 2).await;
    app.anonymous().get(&second.path).await?.ok(200);

    sign_in(&app).await?.problem(401, "unauthenticated");
    assert_eq!(accept(&app, second.token()).await?.status, 204);
    assert_eq!(sign_in(&app).await?.ok(200)["subject_id"], json!(created.id()));
    for used in [&first, &second] {
        accept(&app, used.token()).await?.problem(422, "invalid_body");
    }
    pass_pause(&app).await?;
    admin.api.act(&again).await?.problem(409, "conflict");
    scheduler.stop().await;
    worker.stop().await
}

/// The rules of creating users hold for inviting them.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_invites_whom_they_could_not_create() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let manager = app.signed_in(tenant, Role::Manager, "manager@example.com").await?;
    manager.api.post(PATH, &ada("admin")).await?.problem(403, "forbidden");
    let auditor = admin.api.post(PATH, &ada("auditor")).await?.id();
    pass_pause(&app).await?;
    let again = format!("{PATH}/{auditor}/invite");
    manager.api.act(&again).await?.problem(403, "forbidden");
    let program = app.client(&app.key(tenant, &["users:write"], None).await?.1);
    program
        .post(PATH, &json!({ "email": "b@example.com", "name": "B", "role": "user" }))
        .await?
        .problem(403, "forbidden");
    let every: Vec<_> =
        Role::Admin.permissions().iter().map(Permission::as_str).filter(|one| *one != "api_keys:create").collect();
    let program = app.client(&app.key(tenant, &every, None).await?.1);
    program.act(&again).await?.problem(403, "forbidden");
    assert_eq!(jobs(&app).await?, 1);
    admin.api.act(&again).await?.ok(202);
    assert_eq!(jobs(&app).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_refused_if_it_is_expired_for_another_purpose_or_withdrawn() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let user = admin.api.post(PATH, &ada("viewer")).await?.id();
    let token = async |purpose: LinkPurpose, lifetime_s: i64| -> Result<String> {
        let mut transaction = app.system.tenants.begin(tenant).await?;
        let account = accounts::find(&mut transaction, user).await?.expect("the user exists");
        let expires_at = Clock::system().now() + chrono::TimeDelta::seconds(lifetime_s);
        Ok(app.system.account_links().token(&AccountLink { purpose, tenant, user, expires_at }, &account))
    };
    for (purpose, lifetime_s) in
        [(LinkPurpose::AcceptInvitation, -1), (LinkPurpose::ResetPassword, 60), (LinkPurpose::VerifyEmail, 60)]
    {
        accept(&app, &token(purpose, lifetime_s).await?).await?.problem(422, "invalid_body");
    }
    let good = token(LinkPurpose::AcceptInvitation, 60).await?;
    // Deactivating an invited user withdraws the invitation.
    let toggle = format!("{PATH}/{user}/toggle_status");
    assert_eq!(admin.api.act(&toggle).await?.ok(200)["state"], "deactivated");
    accept(&app, &good).await?.problem(422, "invalid_body");
    sign_in(&app).await?.problem(401, "unauthenticated");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_invitations_are_bounded() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let admin = app.signed_in(tenant, Role::Admin, "admin@example.com").await?;
    let many = format!(
        "insert into users (tenant_id, id, email, email_key, name, role, state)
         select '{tenant}', gen_random_uuid(), n || '@example.com', n || '@example.com', 'n', 'viewer', 'invited'
         from generate_series(1, 99) n"
    );
    tests::sql::execute(&app.system.urls.owner, &many).await?;
    admin.api.post(PATH, &ada("viewer")).await?.ok(201);
    let one_more = json!({ "email": "bob@example.com", "name": "Bob", "role": "viewer" });
    admin.api.post(PATH, &one_more).await?.problem(409, "conflict");
    assert_eq!(jobs(&app).await?, 1);
    let with_password = json!({ "email": "bob@example.com", "name": "Bob", "role": "viewer", "password": SECRET });
    admin.api.post(PATH, &with_password).await?.ok(201);
    Ok(())
}
