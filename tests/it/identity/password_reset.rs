//! A new password by a link in a mail.

use std::time::{Duration, Instant};

use anyhow::Result;
use jobs::account_links::{AccountLink, LinkPurpose};
use serde_json::{Value, json};
use shared::{authz::Role, clock::Clock, store::accounts, tenancy::TenantId};
use tests::test_app::{Answer, PASSWORD, TestApp};
use uuid::Uuid;

use super::{
    becomes,
    mails::{jobs, mail, mails_to, pass_pause},
};

const LEASE: Duration = Duration::from_secs(5);
const SECRET: &str = "violet otters paint the harbour";

async fn forgot(app: &TestApp, body: &Value) -> Result<Answer> {
    app.anonymous().post("/api/v1/auth/forgot-password", body).await
}

async fn reset(app: &TestApp, token: &str, password: &str) -> Result<Answer> {
    let body = json!({ "token": token, "new_password": password });
    app.anonymous().post("/api/v1/auth/reset-password", &body).await
}

async fn sign_in(app: &TestApp, password: &str) -> Result<Answer> {
    let body = json!({ "email": "ada@example.com", "password": password });
    app.anonymous().post("/api/v1/auth/token", &body).await
}

async fn token(
    app: &TestApp,
    tenant: TenantId,
    user: Uuid,
    purpose: LinkPurpose,
    lifetime: chrono::TimeDelta,
) -> Result<String> {
    let mut transaction = app.system.tenants.begin(tenant).await?;
    let account = accounts::find(&mut transaction, user).await?.expect("the user exists");
    let link = AccountLink { purpose, tenant, user, expires_at: Clock::system().now() + lifetime };
    Ok(app.system.account_links().token(&link, &account))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sets_a_new_password_and_all_sessions_end() -> Result<()> {
    let app = TestApp::start().await?;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    becomes(&ada.api, 200).await;
    forgot(&app, &json!({ "email": "ADA@example.com" })).await?.ok(202);
    let mail = mail(&app, "ada@example.com", 1).await;
    assert!(mail.text.contains("Subject: Set a new password for acme\r\n"), "{}", mail.text);

    let page = app.anonymous().get(&mail.path).await?;
    page.ok(200);
    assert!(page.text.contains("name=\"new_password\""), "{}", page.text);
    let refused = reset(&app, mail.token(), "short").await?;
    refused.problem(422, "invalid_body");
    assert_eq!(refused.only_error().0, "/new_password");
    sign_in(&app, PASSWORD).await?.ok(200);

    // The refusal has not used the link up.
    assert_eq!(reset(&app, mail.token(), SECRET).await?.status, 204);
    becomes(&ada.api, 401).await;
    let refresh = json!({ "refresh_token": ada.tokens["refresh_token"] });
    app.anonymous().post("/api/v1/auth/token/refresh", &refresh).await?.problem(401, "unauthenticated");
    sign_in(&app, PASSWORD).await?.problem(401, "unauthenticated");
    sign_in(&app, SECRET).await?.ok(200);
    // The link works once.
    let again = reset(&app, mail.token(), "another long secret of mine").await?;
    again.problem(422, "invalid_body");
    assert_eq!(again.only_error().0, "/token");
    app.anonymous().get(&mail.path).await?.problem(404, "not_found");
    scheduler.stop().await;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_uses_the_form_of_the_page() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let user = app.user(tenant, Role::Viewer, "ada@example.com").await?;
    let token = token(&app, tenant, user, LinkPurpose::ResetPassword, chrono::TimeDelta::minutes(1)).await?;
    let path = format!("/api/v1/auth/reset-password/{token}");
    let submit = async |fields: &str| {
        let request = app.anonymous().request(&axum::http::Method::POST, &path);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Answer::to(request.body(fields.to_owned())).await
    };
    let refused = submit("new_password=password1234").await?;
    refused.ok(200);
    assert!(refused.text.contains("role=\"alert\"") && refused.text.contains("<form"), "{}", refused.text);
    submit("password=x").await?.problem(422, "invalid_body");
    submit("new_password=a&role=admin").await?.problem(422, "invalid_body");
    let done = submit("new_password=violet+otters+paint+the+harbour").await?;
    done.ok(200);
    assert!(done.text.contains("Your password is set"), "{}", done.text);
    sign_in(&app, SECRET).await?.ok(200);
    submit("new_password=violet+otters+paint+the+harbour").await?.problem(404, "not_found");
    Ok(())
}

/// The same text after the same time for an account, for none, and for one that got its mail.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_does_not_tell_whether_there_is_an_account() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.system.tenant("acme").await?, app.system.tenant("other").await?);
    app.user(acme, Role::Viewer, "ada@example.com").await?;
    app.user(acme, Role::Viewer, "two@example.com").await?;
    app.user(other, Role::Viewer, "two@example.com").await?;
    let mut answers = Vec::new();
    for (body, jobs_after) in [
        (json!({ "email": "nobody@example.com" }), 0),
        (json!({ "email": "ada@example.com", "company": "other" }), 0),
        (json!({ "email": "two@example.com" }), 0),
        (json!({ "email": "ada@example.com" }), 1),
        (json!({ "email": "ada@example.com", "company": "acme" }), 1),
        (json!({ "email": "two@example.com", "company": "other" }), 2),
    ] {
        let begun = Instant::now();
        let answer = forgot(&app, &body).await?;
        answers.push((answer.ok(202).clone(), begun.elapsed()));
        assert_eq!(jobs(&app).await?, jobs_after, "{body}");
    }
    assert!(answers.iter().all(|(text, _)| *text == answers[0].0), "{answers:?}");
    // Each takes a multiple of 250 ms; the least of them is the same on an idle machine.
    assert!(answers.iter().all(|(_, time)| *time >= Duration::from_millis(250)), "{answers:?}");
    for body in [json!({ "email": "nobody" }), json!({}), json!({ "email": "a@b.test", "tenant": "acme" })] {
        forgot(&app, &body).await?.problem(422, "invalid_body");
    }
    Ok(())
}

/// The row of the user bounds the mails of all processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_one_mail_in_five_minutes() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    app.user(tenant, Role::Viewer, "ada@example.com").await?;
    let (other_api, _stop) = app.another_api().await?;
    let body = json!({ "email": "ada@example.com" });
    let both = [app.anonymous(), other_api.clone()];
    let requests = both.iter().flat_map(|api| [api, api]).map(|api| api.post("/api/v1/auth/forgot-password", &body));
    for answer in futures::future::try_join_all(requests).await? {
        answer.ok(202);
    }
    assert_eq!(jobs(&app).await?, 1);
    let almost = "update users set account_mail_at = now() - interval '4 minutes 50 seconds'";
    tests::sql::execute(&app.system.urls.owner, almost).await?;
    other_api.post("/api/v1/auth/forgot-password", &body).await?.ok(202);
    assert_eq!(jobs(&app).await?, 1);
    pass_pause(&app).await?;
    other_api.post("/api/v1/auth/forgot-password", &body).await?.ok(202);
    assert_eq!(jobs(&app).await?, 2);
    // A process also bounds the requests for one address, without another answer.
    pass_pause(&app).await?;
    for _ in 0..2 {
        other_api.post("/api/v1/auth/forgot-password", &body).await?.ok(202);
    }
    pass_pause(&app).await?;
    other_api.post("/api/v1/auth/forgot-password", &body).await?.ok(202);
    assert_eq!(jobs(&app).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_refused_if_it_is_expired_for_another_purpose_or_of_somebody_who_left() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let user = app.user(tenant, Role::Viewer, "ada@example.com").await?;
    let (hour, gone) = (chrono::TimeDelta::hours(1), chrono::TimeDelta::seconds(-1));
    let good = token(&app, tenant, user, LinkPurpose::ResetPassword, hour).await?;
    for token in [
        token(&app, tenant, user, LinkPurpose::ResetPassword, gone).await?,
        token(&app, tenant, user, LinkPurpose::VerifyEmail, hour).await?,
        token(&app, tenant, user, LinkPurpose::AcceptInvitation, hour).await?,
        format!("{good}A"),
        good[..good.len() - 1].to_owned(),
    ] {
        let refused = reset(&app, &token, SECRET).await?;
        refused.problem(422, "invalid_body");
        assert_eq!(refused.only_error().0, "/token");
    }
    let set_state = async |state: &str| {
        let statement = format!("update users set state = '{state}' where id = '{user}'");
        tests::sql::execute(&app.system.urls.owner, &statement).await
    };
    set_state("deactivated").await?;
    reset(&app, &good, SECRET).await?.problem(422, "invalid_body");
    forgot(&app, &json!({ "email": "ada@example.com", "company": "acme" })).await?.ok(202);
    assert_eq!(jobs(&app).await?, 0);
    set_state("active").await?;
    // Of two uses at the same time, one has an effect.
    let uses = [reset(&app, &good, SECRET), reset(&app, &good, "another long secret of mine")];
    let mut statuses: Vec<_> = futures::future::try_join_all(uses).await?.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 422]);
    Ok(())
}

/// Who lost the first mail asks for a new password, which confirms the address too.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_confirms_the_address() -> Result<()> {
    let app = TestApp::start().await?;
    let (scheduler, worker) = (app.system.scheduler(), app.system.worker(2, LEASE));
    let company = json!({ "slug": "acme", "name": "Acme" });
    let body = json!({ "company": company, "email": "ada@example.com", "name": "Ada", "password": PASSWORD });
    app.anonymous().post("/api/v1/auth/register", &body).await?.ok(202);
    mail(&app, "ada@example.com", 1).await;
    let named = json!({ "email": "ada@example.com", "company": "acme" });
    forgot(&app, &named).await?.ok(202);
    assert_eq!(jobs(&app).await?, 1, "the mail of the registration counts");
    pass_pause(&app).await?;
    forgot(&app, &json!({ "email": "ada@example.com" })).await?.ok(202);
    assert_eq!(jobs(&app).await?, 1, "a company that nobody confirmed has to be named");
    forgot(&app, &named).await?.ok(202);
    let second = mail(&app, "ada@example.com", 2).await;
    sign_in(&app, PASSWORD).await?.problem(401, "unauthenticated");
    assert_eq!(reset(&app, second.token(), SECRET).await?.status, 204);
    sign_in(&app, SECRET).await?.ok(200);
    assert_eq!(mails_to(&app, "ada@example.com")?.len(), 2);
    scheduler.stop().await;
    worker.stop().await
}
