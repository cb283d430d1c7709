//! The suppression list: read, filtered, extended and shortened; unsubscriptions are removed only
//! with an explicit confirmation.

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::test_app::{Answer, ApiClient, TestApp};

const LIST: &str = "/api/v1/suppressions";

async fn suppress(api: &ApiClient, body: Value) -> Result<Answer> {
    api.post(LIST, &body).await
}

async fn addresses(api: &ApiClient, query: &str) -> Result<Vec<String>> {
    let answer = api.get(&format!("{LIST}{query}")).await?;
    let items = answer.ok(200)["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|item| item["address"].as_str().unwrap_or_default().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_added_once_shown_and_removed() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let answer = suppress(&api, json!({ "address": " Ada@Example.COM", "detail": "asked by phone" })).await?;
    insta::assert_json_snapshot!(super::redacted(answer.ok(201).clone()), @r#"
    {
      "address": "ada@example.com",
      "campaign_id": null,
      "code": null,
      "created_at": "[time]",
      "detail": "asked by phone",
      "id": "[id]",
      "reason": "manual",
      "source": "api",
      "stage": null
    }
    "#);
    let entry = answer.body.clone();
    assert_eq!(answer.header("location"), format!("{LIST}/{}", answer.id()));
    let again = suppress(&api, json!({ "address": "ada@example.com", "reason": "rejected" })).await?;
    assert_eq!(again.ok(200), &entry, "the first reason stays");
    for path in
        [format!("{LIST}/{}", answer.id()), format!("{LIST}/ADA@example.com"), format!("{LIST}/ada%40example.com")]
    {
        assert_eq!(api.get(&path).await?.ok(200), &entry, "{path}");
    }
    assert_eq!(api.delete(&format!("{LIST}/ada@example.com")).await?.status, 204);
    api.delete(&format!("{LIST}/ada@example.com")).await?.problem(404, "not_found");
    api.get(&format!("{LIST}/{}", answer.id())).await?.problem(404, "not_found");
    api.get(&format!("{LIST}/nobody")).await?.problem(404, "not_found");
    suppress(&api, json!({ "address": "ada@example.com" })).await?.ok(201);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsubscription_is_removed_only_with_confirmation() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    suppress(&api, json!({ "address": "ada@example.com", "reason": "unsubscribed" })).await?.ok(201);
    let path = format!("{LIST}/ada@example.com");
    let refused = api.delete(&path).await?;
    assert_eq!(refused.problem(409, "conflict")["reason"], "unsubscribed");
    api.delete(&format!("{path}?confirm_unsubscribed=false")).await?.problem(409, "conflict");
    api.delete(&format!("{path}?confirm=true")).await?.problem(400, "invalid_query");
    api.get(&path).await?.ok(200);
    assert_eq!(api.delete(&format!("{path}?confirm_unsubscribed=true")).await?.status, 204);
    assert_eq!(addresses(&api, "").await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_paginated_and_per_tenant() -> Result<()> {
    let app = TestApp::start().await?;
    let (api, stranger) = (app.tenant("acme").await?.api, app.tenant("stranger").await?.api);
    for number in 0..5 {
        let reason = if number % 2 == 0 { "rejected" } else { "manual" };
        suppress(&api, json!({ "address": format!("a{number}@example.com"), "reason": reason })).await?.ok(201);
    }
    let newest_first: Vec<String> = (0..5).rev().map(|number| format!("a{number}@example.com")).collect();
    assert_eq!(addresses(&api, "").await?, newest_first);
    assert_eq!(addresses(&api, "?reason=manual").await?, ["a3@example.com", "a1@example.com"]);
    assert_eq!(addresses(&api, "?address=A2%40example.com").await?, ["a2@example.com"]);
    assert_eq!(addresses(&api, "?address=none%40example.com").await?, Vec::<String>::new());
    assert_eq!(addresses(&stranger, "").await?, Vec::<String>::new());

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{LIST}?limit=2{cursor}")).await?;
        let items = page.ok(200)["items"].as_array().cloned().unwrap_or_default();
        seen.extend(items.iter().map(|item| item["address"].as_str().unwrap_or_default().to_owned()));
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, newest_first);
    for refused in ["?reason=spam", "?limit=0", "?address=nobody", "?cursor=x", "?order=asc"] {
        api.get(&format!("{LIST}{refused}")).await?.problem(400, "invalid_query");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_entry_is_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (body, pointer) in [
        (json!({ "address": "nobody" }), "/address"),
        (json!({ "address": "a@example.com", "detail": "x".repeat(501) }), "/detail"),
        (json!({ "address": "a@example.com", "reason": "spam" }), "/reason"),
        (json!({ "address": "a@example.com", "tenant_id": "x" }), "/tenant_id"),
        (json!({ "address": "a\0@example.com" }), "/address"),
    ] {
        let answer = suppress(&api, body).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error().0, pointer, "{}", answer.text);
    }
    suppress(&api, json!({ "address": "a@example.com", "detail": "x".repeat(500) })).await?.ok(201);
    Ok(())
}

/// The previous release does not write ids and sources.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_previous_release_are_listed() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.tenant("acme").await?;
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    for (key, reason) in [("old@example.com", "unsubscribed"), ("older@example.com", "rejected")] {
        sqlx::query("insert into suppressions (tenant_id, email_key, reason) values ($1, $2, $3)")
            .bind(tenant.id.as_uuid())
            .bind(key)
            .bind(reason)
            .execute(&mut owner)
            .await?;
    }
    assert_eq!(tenant.api.get(&format!("{LIST}/old@example.com")).await?.ok(200)["source"], "recipient");
    assert_eq!(tenant.api.get(&format!("{LIST}/older@example.com")).await?.ok(200)["source"], "relay");
    let answer = suppress(&tenant.api, json!({ "address": "new@example.com" })).await?;
    answer.ok(201);
    assert_eq!(addresses(&tenant.api, "").await?[0], "new@example.com");
    Ok(())
}
