//! Signing in with a password, and signing out.

use anyhow::Result;
use serde_json::json;
use shared::authz::Role;
use tests::test_app::{PASSWORD, TestApp};

use super::{becomes, permissions};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_works_and_signs_out() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let id = app.user(tenant, Role::User, "ada@example.com").await?;
    // The domain in any case, as addresses are compared.
    let body = json!({ "company": "acme", "email": "ada@EXAMPLE.com", "password": PASSWORD });
    let answer = app.anonymous().post("/api/v1/auth/token", &body).await?;
    let pair = answer.ok(200);
    assert_eq!(
        (&pair["token_type"], &pair["expires_in"], &pair["refresh_expires_in"]),
        (&json!("Bearer"), &json!(1800), &json!(604_800))
    );
    assert_eq!((&pair["subject_id"], &pair["company_id"]), (&json!(id), &json!(tenant)));
    assert_eq!(answer.header("cache-control"), "no-store");

    let api = app.anonymous().with_token(pair["access_token"].as_str().unwrap());
    let job = api.post("/api/v1/jobs", &json!({ "kind": "noop" })).await?.id();
    api.get(&format!("/api/v1/jobs/{job}")).await?.ok(200);
    let refused = api.act(&format!("/api/v1/jobs/{job}/cancel")).await?;
    assert_eq!(refused.problem(403, "forbidden")["detail"], "the user lacks the permission jobs:control");
    assert_eq!(api.get(&format!("/api/v1/users/{id}")).await?.ok(200)["role"], "user");

    assert_eq!(api.act("/api/v1/auth/logout").await?.status, 204);
    assert_eq!(api.get("/api/v1/permissions/me").await?.status, 401, "at once in the same process");
    let refresh = json!({ "refresh_token": pair["refresh_token"] });
    app.anonymous().post("/api/v1/auth/token/refresh", &refresh).await?.problem(401, "unauthenticated");
    Ok(())
}

/// One answer for an unknown address, a wrong password, another company and a user without a
/// password.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_tell_why() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    app.system.tenant("other").await?;
    app.user(tenant, Role::User, "ada@example.com").await?;
    let unset = app.user(tenant, Role::User, "bob@example.com").await?;
    tests::sql::execute(&app.system.urls.owner, &format!("update users set password_hash = null where id = '{unset}'"))
        .await?;
    let gone = app.user(tenant, Role::User, "eve@example.com").await?;
    tests::sql::execute(&app.system.urls.owner, &format!("update users set state = 'deactivated' where id = '{gone}'"))
        .await?;
    let mut texts = std::collections::BTreeSet::new();
    for body in [
        json!({ "email": "nobody@example.com", "password": PASSWORD }),
        json!({ "email": "ada@example.com", "password": "another password" }),
        json!({ "email": "ada@example.com", "password": "" }),
        json!({ "email": "ada@example.com", "password": "x".repeat(257) }),
        json!({ "company": "other", "email": "ada@example.com", "password": PASSWORD }),
        json!({ "company": "no-such", "email": "ada@example.com", "password": PASSWORD }),
        json!({ "email": "bob@example.com", "password": PASSWORD }),
        json!({ "email": "eve@example.com", "password": PASSWORD }),
    ] {
        let mut problem =
            app.anonymous().post("/api/v1/auth/token", &body).await?.problem(401, "unauthenticated").clone();
        problem["request_id"].take();
        texts.insert(problem.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    Ok(())
}

/// The address and the password are enough as long as one account of the address has this password:
/// an account that another company creates for the address keeps nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_two_accounts_signs_in_to_the_one_with_the_password() -> Result<()> {
    let app = TestApp::start().await?;
    let (acme, other) = (app.system.tenant("acme").await?, app.system.tenant("other").await?);
    let first = app.user(acme, Role::User, "ada@example.com").await?;
    let admin = app.signed_in(other, Role::Admin, "admin@example.com").await?;
    let body = json!({ "email": "ada@example.com", "name": "A", "role": "viewer", "password": "violet otters paint" });
    let second = admin.api.post("/api/v1/users", &body).await?.id();
    assert_eq!(app.sign_in("ada@example.com").await?["subject_id"], json!(first));
    let body = json!({ "email": "ada@example.com", "password": "violet otters paint" });
    assert_eq!(app.anonymous().post("/api/v1/auth/token", &body).await?.ok(200)["subject_id"], json!(second));
    // With one password for both, the company decides.
    let same = "update users set password_hash = (select password_hash from users where role = 'admin') where email_key = 'ada@example.com'";
    tests::sql::execute(&app.system.urls.owner, same).await?;
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    app.anonymous().post("/api/v1/auth/token", &body).await?.problem(401, "unauthenticated");
    let body = json!({ "company": "other", "email": "ada@example.com", "password": PASSWORD });
    let pair = app.anonymous().post("/api/v1/auth/token", &body).await?.ok(200).clone();
    assert_eq!((&pair["subject_id"], &pair["company_id"]), (&json!(second), &json!(other)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_bounded_for_each_account() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    app.user(tenant, Role::User, "ada@example.com").await?;
    app.user(tenant, Role::User, "bob@example.com").await?;
    let guess = json!({ "email": "ada@example.com", "password": "a guess of somebody" });
    for _ in 0..10 {
        app.anonymous().post("/api/v1/auth/token", &guess).await?.problem(401, "unauthenticated");
    }
    let refused = app.anonymous().post("/api/v1/auth/token", &guess).await?;
    refused.problem(429, "rate_limited");
    assert!((1..=7).contains(&refused.header("retry-after").parse::<u64>()?), "{}", refused.header("retry-after"));
    app.sign_in("bob@example.com").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_the_other_sessions() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let ada = app.signed_in(tenant, Role::Viewer, "ada@example.com").await?;
    let second = app.sign_in("ada@example.com").await?;
    let other = app.anonymous().with_token(second["access_token"].as_str().unwrap());
    becomes(&other, 200).await;
    let change = |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
    let path = "/api/v1/users/me/password";
    ada.api.put(path, &change("another password", "a longer password of mine")).await?.problem(409, "conflict");
    for (new, told) in
        [("short", "at least 12"), ("password1234", "first that are guessed"), ("ada@example.com", "guessed")]
    {
        let refused = ada.api.put(path, &change(PASSWORD, new)).await?;
        refused.problem(422, "invalid_body");
        let (pointer, detail) = refused.only_error();
        assert!(pointer == "/new_password" && detail.contains(told), "{detail}");
    }
    assert_eq!(ada.api.put(path, &change(PASSWORD, "violet otters paint the harbour")).await?.status, 204);
    becomes(&other, 401).await;
    becomes(&ada.api, 200).await;
    let old = json!({ "email": "ada@example.com", "password": PASSWORD });
    app.anonymous().post("/api/v1/auth/token", &old).await?.problem(401, "unauthenticated");
    let new = json!({ "email": "ada@example.com", "password": "violet otters paint the harbour" });
    app.anonymous().post("/api/v1/auth/token", &new).await?.ok(200);
    Ok(())
}

/// Each role's user holds the permissions of the role, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_holds_the_permissions_of_the_role() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    for role in Role::all() {
        let user = app.signed_in(tenant, role, &format!("{}@example.com", role.as_str().replace('_', "-"))).await?;
        let expected: Vec<String> = role.permissions().iter().map(|permission| permission.to_string()).collect();
        assert_eq!(permissions(&user.api).await?, expected, "{role}");
        let roles = user.api.get("/api/v1/roles").await?;
        assert_eq!(roles.status == 200, role != Role::User, "{role}");
    }
    Ok(())
}
