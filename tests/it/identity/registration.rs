//! Companies that register themselves: from the request over the mail to the first sign-in.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use jobs::account_links::{AccountLink, LinkPurpose};
use serde_json::{Value, json};
use shared::{clock::Clock, config::TestKinds, store::accounts, tenancy::TenantId};
use tests::test_app::{Answer, TestApp};
use uuid::Uuid;

use super::mails::{jobs, mail, mails_to};

const LEASE: Duration = Duration::from_secs(5);
const SECRET: &str = "violet otters paint the harbour";

fn registration(slug: &str, email: &str) -> Value {
    json!({ "company": { "slug": slug, "name": "Acme & Co" }, "email": email, "name": "Ada", "password": SECRET })
}

async fn register(app: &TestApp, slug: &str, email: &str) -> Result<Answer> {
    app.anonymous().post("/api/v1/auth/register", &registration(slug, email)).await
}

async fn sign_in(app: &TestApp, slug: &str, email: &str) -> Result<Answer> {
    let body = json!({ "company": slug, "email": email, "password": SECRET });
    app.anonymous().post("/api/v1/auth/token", &body).await
}

async fn verify(app: &TestApp, token: &str) -> Result<Answer> {
    app.anonymous().post("/api/v1/auth/verify-email", &json!({ "token": token })).await
}

/// The id of the company and of its only user.
async fn ids(app: &TestApp, slug: &str) -> Result<(TenantId, Uuid)> {
    let of = |column: &str| {
        format!("select u.{column} from users u join tenants t on t.id = u.tenant_id where t.slug = '{slug}'")
    };
    let tenant = tests::sql::one(&app.system.urls.owner, &of("tenant_id")).await?;
    Ok((TenantId::new(tenant), tests::sql::one(&app.system.urls.owner, &of("id")).await?))
}

/// A token as in a mail, with another purpose or expiry.
async fn token(app: &TestApp, slug: &str, purpose: LinkPurpose, expires_at: DateTime<Utc>) -> Result<String> {
    let (tenant, user) = ids(app, slug).await?;
    let mut transaction = app.system.tenants.begin(tenant).await?;
    let account = accounts::find(&mut transaction, user).await?.expect("the user exists");
    Ok(app.system.account_links().token(&AccountLink { purpose, tenant, user, expires_at }, &account))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_registers_confirms_its_address_and_signs_in() -> Result<()> {
    let app = TestApp::start().await?;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let accepted = register(&app, "acme", "Ada@Example.com").await?;
    assert!(accepted.ok(202)["detail"].is_string());
    let mail = mail(&app, "Ada@example.com", 1).await;
    assert!(mail.text.contains("Subject: Confirm your address for acme\r\n"), "{}", mail.text);
    assert!(mail.text.contains("From: no-reply@rota.test\r\n") && !mail.text.contains("Acme & Co"), "{}", mail.text);
    sign_in(&app, "acme", "ada@example.com").await?.problem(401, "unauthenticated");

    // A scanner that follows the link changes nothing.
    let page = app.anonymous().get(&mail.path).await?;
    page.ok(200);
    assert!(page.text.contains("<form method=\"post\">"), "{}", page.text);
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    sign_in(&app, "acme", "ada@example.com").await?.problem(401, "unauthenticated");
    app.anonymous().act(&mail.path).await?.ok(200);
    let pair = sign_in(&app, "acme", "ada@example.com").await?.ok(200).clone();
    assert_eq!(verify(&app, mail.token()).await?.status, 204, "repeating it is no error");

    let api = app.anonymous().with_token(pair["access_token"].as_str().unwrap_or_default());
    let user = api.get(&format!("/api/v1/users/{}", pair["subject_id"].as_str().unwrap_or_default())).await?;
    assert_eq!((&user.ok(200)["role"], &user.body["state"]), (&json!("admin"), &json!("active")));
    let tier: String = tests::sql::one(&app.system.urls.owner, "select tier from tenants where slug = 'acme'").await?;
    assert_eq!(tier, "trial");
    // The ledger holds no credential.
    let args: String = tests::sql::one(&app.system.urls.owner, "select args::text from jobs").await?;
    let args: Value = serde_json::from_str(&args)?;
    assert_eq!(args, json!({ "user_id": pair["subject_id"], "purpose": "verify_email" }));
    scheduler.stop().await;
    worker.stop().await
}

/// The job is committed with the rows: an API that dies right after the commit, and a lost index,
/// cost no mail.
#[tokio::test(flavor = "multi_thread")]
async fn the_mail_survives_the_api_and_the_index() -> Result<()> {
    let app = TestApp::start().await?;
    register(&app, "acme", "ada@example.com").await?.ok(202);
    assert_eq!(jobs(&app).await?, 1);
    // Another index is what is left after the loss of the first one.
    let urls = app.system.urls.clone();
    let other = tests::system::TestSystem::on(urls, app.system.redis_url.clone(), None).await?;
    let (scheduler, worker) = (other.scheduler(), other.worker(2, LEASE));
    let arrived = tests::eventually::eventually(Duration::from_mins(1), "the mail", async || {
        let count = std::fs::read_dir(other.mails.path()).ok()?.count();
        (count == 1).then_some(count)
    });
    assert_eq!(arrived.await, 1);
    worker.stop().await?;
    scheduler.stop().await;
    assert!(mails_to(&app, "ada@example.com")?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_registration_is_refused_with_all_reasons() -> Result<()> {
    let app = TestApp::start().await?;
    let body = json!({ "company": { "slug": "Acme", "name": "" }, "email": "ada", "name": "\n", "password": "short" });
    let problem = app.anonymous().post("/api/v1/auth/register", &body).await?.problem(422, "invalid_body").clone();
    let pointers: Vec<_> =
        problem["errors"].as_array().into_iter().flatten().map(|error| error["pointer"].as_str()).collect();
    let expected = ["/company/slug", "/company/name", "/name", "/email", "/password"];
    assert_eq!(pointers, expected.map(Some));
    register(&app, &"a".repeat(64), "ada@example.com").await?.problem(422, "invalid_body");
    register(&app, &"a".repeat(63), "ada@example.com").await?.ok(202);
    for body in [json!({}), json!({ "tier": "enterprise" })] {
        app.anonymous().post("/api/v1/auth/register", &body).await?.problem(422, "invalid_body");
    }
    Ok(())
}

/// A slug belongs to one company, an address to any number of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_slug_is_a_conflict_and_leaves_nothing_behind() -> Result<()> {
    let app = TestApp::start().await?;
    let taken = app.tenant("taken").await?;
    app.user(taken.id, shared::authz::Role::Admin, "ada@example.com").await?;
    register(&app, "taken", "ada@example.com").await?.problem(409, "conflict");
    assert_eq!(jobs(&app).await?, 0);
    let first = register(&app, "acme", "ada@example.com").await?;
    let second = register(&app, "other", "nobody@example.com").await?;
    assert_eq!(first.ok(202), second.ok(202), "one answer, whether or not the address has an account");
    // An account that nobody confirmed does not stand between its address and another account.
    app.sign_in("ada@example.com").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_refused_if_it_is_expired_changed_or_for_another_purpose() -> Result<()> {
    let app = TestApp::start().await?;
    register(&app, "acme", "ada@example.com").await?.ok(202);
    let now = Clock::system().now();
    let soon = now + chrono::TimeDelta::minutes(1);
    let good = token(&app, "acme", LinkPurpose::VerifyEmail, soon).await?;
    let changed = good.replacen(|_: char| true, if good.starts_with('A') { "B" } else { "A" }, 1);
    let mut refused = vec![changed, good[1..].to_owned(), String::new(), "x".repeat(600)];
    refused.push(token(&app, "acme", LinkPurpose::VerifyEmail, now - chrono::TimeDelta::seconds(1)).await?);
    refused.push(token(&app, "acme", LinkPurpose::ResetPassword, soon).await?);
    refused.push(token(&app, "acme", LinkPurpose::AcceptInvitation, soon).await?);
    for token in refused {
        let answer = verify(&app, &token).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error().0, "/token");
        if !token.is_empty() {
            app.anonymous().get(&format!("/api/v1/auth/verify-email/{token}")).await?.problem(404, "not_found");
            app.anonymous().act(&format!("/api/v1/auth/verify-email/{token}")).await?.problem(404, "not_found");
        }
    }
    sign_in(&app, "acme", "ada@example.com").await?.problem(401, "unauthenticated");
    assert_eq!(verify(&app, &good).await?.status, 204);
    sign_in(&app, "acme", "ada@example.com").await?.ok(200);
    // A confirmation does not undo what an administrator did since.
    let (_, user) = ids(&app, "acme").await?;
    let deactivate = format!("update users set state = 'deactivated' where id = '{user}'");
    tests::sql::execute(&app.system.urls.owner, &deactivate).await?;
    verify(&app, &good).await?.problem(422, "invalid_body");
    Ok(())
}

/// In one process, and across processes by the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn mails_to_one_address_are_bounded() -> Result<()> {
    let app = TestApp::start().await?;
    for number in 0..5 {
        register(&app, &format!("acme-{number}"), "ada@example.com").await?.ok(202);
    }
    let refused = register(&app, "acme-5", "ADA@example.com").await?;
    refused.problem(429, "rate_limited");
    assert!(refused.header("retry-after").parse::<u64>()? > 60);
    let (other_api, _stop) = app.another_api().await?;
    let body = registration("acme-5", "ada@example.com");
    other_api.post("/api/v1/auth/register", &body).await?.problem(429, "rate_limited");
    assert_eq!(jobs(&app).await?, 5);
    let yesterday = "update users set account_mail_at = account_mail_at - interval '1 day'";
    tests::sql::execute(&app.system.urls.owner, yesterday).await?;
    other_api.post("/api/v1/auth/register", &body).await?.ok(202);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_for_one_client_are_bounded() -> Result<()> {
    let app = TestApp::start().await?;
    let forgotten = |number: usize| json!({ "email": format!("user{number}@example.com") });
    for number in 0..20 {
        app.anonymous().post("/api/v1/auth/forgot-password", &forgotten(number)).await?.ok(202);
    }
    app.anonymous().post("/api/v1/auth/forgot-password", &forgotten(20)).await?.problem(429, "rate_limited");
    register(&app, "acme", "ada@example.com").await?.problem(429, "rate_limited");
    Ok(())
}

/// Clients cannot submit the kind: they would send mails to any user.
#[tokio::test(flavor = "multi_thread")]
async fn the_kind_is_internal() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let user = app.user(tenant.id, shared::authz::Role::Viewer, "ada@example.com").await?;
    let args = json!({ "user_id": user, "purpose": "reset_password" });
    let job = json!({ "kind": "send_account_mail", "args": args });
    tenant.api.post("/api/v1/jobs", &job).await?.problem(422, "unknown_kind");
    let registry = ::jobs::registry::Registry::new(TestKinds::None);
    assert!(registry.get("send_account_mail").is_some_and(|kind| kind.internal));
    Ok(())
}
