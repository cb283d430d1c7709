//! Campaigns: the reasons for refusing a draft, and the transitions that each state allows.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::test_app::{ApiClient, TestApp};
use uuid::Uuid;

use crate::api::{campaign, draft, redacted};

const CAMPAIGNS: &str = "/api/v1/campaigns";

async fn conflict(api: &ApiClient, id: Uuid, step: &str, state: &str) -> Result<()> {
    let answer = api.post(&format!("{CAMPAIGNS}/{id}/{step}"), &json!({})).await?;
    assert_eq!(answer.problem(409, "conflict")["state"], state, "{step}: {}", answer.text);
    Ok(())
}

async fn step(api: &ApiClient, id: Uuid, step: &str, body: &Value, status: u16, state: &str) -> Result<()> {
    let answer = api.post(&format!("{CAMPAIGNS}/{id}/{step}"), body).await?;
    assert_eq!(answer.ok(status)["state"], state, "{step}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_shown_as_it_was_made() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let answer = api.post(CAMPAIGNS, &draft()).await?;
    insta::assert_json_snapshot!(redacted(answer.ok(201).clone()), @r#"
    {
      "created_at": "[time]",
      "finished_at": null,
      "from": {
        "email": "news@rota.example",
        "name": "Rota"
      },
      "html": null,
      "id": "[id]",
      "name": "Spring",
      "pause_detail": null,
      "pause_reason": null,
      "progress": {
        "cancelled": 0,
        "failed": 0,
        "pending": 0,
        "queued": 0,
        "rejected": 0,
        "sent": 0,
        "suppressed": 0
      },
      "send_at": null,
      "started_at": null,
      "state": "draft",
      "subject": "Hello {{ first_name }}",
      "text": "Dear {{ first_name }}"
    }
    "#);
    assert_eq!(answer.header("location"), format!("{CAMPAIGNS}/{}", answer.id()));
    assert_eq!(api.get(answer.header("location")).await?.ok(200), &answer.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_cannot_be_sent_is_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let cases = [
        ("/subject", json!("Hello {{ first_name"), "subject, line 1: "),
        ("/text", json!("Dear\n{% if first_name %}\nyou"), "text, line "),
        ("/html", json!("<p>\n\n{{ first_name | no_such_filter }}</p>"), "html, line 3: "),
        ("/from/email", json!("nobody"), ""),
        ("/from/email", json!("a@example.com\r\nBcc: b@example.com"), ""),
        ("/name", json!(" "), "a name has 1 to 200 characters"),
        ("/name", json!("n".repeat(201)), "a name has 1 to 200 characters"),
        ("/state", json!("sending"), "unknown field `state`"),
        ("/tenant_id", json!(Uuid::nil()), "unknown field `tenant_id`"),
        ("/from/reply", json!("x"), "unknown field `reply`"),
        ("/leads_csv", json!(""), "the file is empty: its first line must name the columns"),
        ("/leads_csv", json!("name\nAda\n"), ""),
    ];
    for (pointer, value, detail) in cases {
        let mut body = draft();
        let (parent, member) = pointer.rsplit_once('/').expect("pointers begin with a slash");
        body.pointer_mut(parent).expect("the pointer exists")[member] = value;
        let answer = api.post(CAMPAIGNS, &body).await?;
        answer.problem(422, "invalid_body");
        let (told, text) = answer.only_error();
        assert!(told == pointer && text.contains(detail), "{pointer}: {}", answer.text);
    }
    let mut named = draft();
    named["name"] = "n".repeat(200).into();
    api.post(CAMPAIGNS, &named).await?.ok(201);
    assert_eq!(api.get(CAMPAIGNS).await?.ok(200)["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_for_the_first_recipient_is_sent_to_none() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut body = draft();
    body["text"] = "Dear {{ first_name }}\nfrom {{ town }}".into();
    body["leads_csv"] = "email,first_name\nada@example.com,Ada\n".into();
    let id = api.post(CAMPAIGNS, &body).await?.id();
    for action in ["preview", "send"] {
        let answer = api.post(&format!("{CAMPAIGNS}/{id}/{action}"), &json!({})).await?;
        answer.problem(422, "invalid_body");
        let (pointer, text) = answer.only_error();
        assert_eq!(pointer, "/text");
        assert!(text.starts_with("text, line 2: unknown variable `town`"), "{text}");
    }
    assert_eq!(api.get(&format!("{CAMPAIGNS}/{id}")).await?.ok(200)["state"], "draft");
    assert_eq!(api.get("/api/v1/jobs").await?.ok(200)["items"], json!([]));
    // The same when the draft is sent in one request; no draft is left behind.
    body["send"] = true.into();
    api.post(CAMPAIGNS, &body).await?.problem(422, "invalid_body");
    assert_eq!(api.get(CAMPAIGNS).await?.ok(200)["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_the_mail_of_one_recipient() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut body = draft();
    body["html"] = "<p>{{ first_name }}</p>".into();
    body["leads_csv"] = "email,first_name\nada@example.com,Ada\nbob@example.com,<b>Bob</b>\n".into();
    let path = format!("{CAMPAIGNS}/{}/preview", api.post(CAMPAIGNS, &body).await?.id());
    let answer = api.post(&path, &json!({ "email": "BOB@example.com" })).await?;
    assert_eq!(
        (&answer.ok(200)["to"], &answer.body["subject"]),
        (&json!("bob@example.com"), &json!("Hello <b>Bob</b>"))
    );
    assert_eq!(answer.body["html"], "<p>&lt;b&gt;Bob&lt;/b&gt;</p>", "values are escaped in HTML");
    let answer = api.post(&path, &json!({ "variables": { "first_name": "Eve" } })).await?;
    assert_eq!(answer.ok(200)["subject"], "Hello Eve");
    api.post(&path, &json!({ "email": "eve@example.com" })).await?.problem(409, "conflict");
    api.post(&path, &json!({ "email": "nobody" })).await?.problem(422, "invalid_body");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_of_a_campaign_permits_its_steps_and_refuses_others() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let empty = api.post(CAMPAIGNS, &draft()).await?.id();
    let answer = api.post(&format!("{CAMPAIGNS}/{empty}/send"), &json!({})).await?;
    let detail = answer.problem(409, "conflict")["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("import leads first"), "{detail}");

    let id = campaign(&api).await?;
    for refused in ["pause", "resume"] {
        conflict(&api, id, refused, "draft").await?;
    }
    let later = app.system.clock.now() + TimeDelta::hours(1);
    step(&api, id, "send", &json!({ "send_at": later }), 202, "scheduled").await?;
    api.upload(&format!("{CAMPAIGNS}/{id}/leads"), "email,first_name\nbob@example.com,Bob\n").await?.ok(200);
    for refused in ["send", "resume"] {
        conflict(&api, id, refused, "scheduled").await?;
    }
    step(&api, id, "pause", &Value::Null, 200, "paused").await?;
    for refused in ["pause", "send"] {
        conflict(&api, id, refused, "paused").await?;
    }
    // The send time is in the future.
    step(&api, id, "resume", &Value::Null, 202, "scheduled").await?;
    let scheduled = api.get(&format!("{CAMPAIGNS}/{id}")).await?;
    let kept: DateTime<Utc> = scheduled.ok(200)["send_at"].as_str().unwrap_or_default().parse()?;
    assert_eq!(kept.timestamp_micros(), later.timestamp_micros());
    assert_eq!(scheduled.body["started_at"], Value::Null);
    step(&api, id, "pause", &Value::Null, 200, "paused").await?;
    assert_eq!(api.get(&format!("{CAMPAIGNS}/{id}")).await?.ok(200)["pause_reason"], "requested");
    // The send time passes while the campaign is paused.
    let mut owner = PgConnection::connect(&app.system.urls.owner).await?;
    sqlx::query("update campaigns set send_at = now() - interval '1 hour'").execute(&mut owner).await?;
    step(&api, id, "resume", &Value::Null, 202, "sending").await?;
    for refused in ["resume", "send"] {
        conflict(&api, id, refused, "sending").await?;
    }
    let late = api.upload(&format!("{CAMPAIGNS}/{id}/leads"), "email,first_name\neve@example.com,Eve\n").await?;
    late.problem(409, "conflict");
    step(&api, id, "cancel", &Value::Null, 200, "cancelled").await?;
    for refused in ["cancel", "pause", "resume", "send"] {
        conflict(&api, id, refused, "cancelled").await?;
    }
    let campaign = api.get(&format!("{CAMPAIGNS}/{id}")).await?;
    assert_eq!(campaign.ok(200)["progress"]["cancelled"], 2, "{}", campaign.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_sent_at_once_needs_the_scope_to_send() -> Result<()> {
    let app = TestApp::start().await?;
    let tenant = app.system.tenant("acme").await?;
    let writer = app.client(&app.key(tenant, &["campaigns:write", "campaigns:read"], None).await?.1);
    let mut body = draft();
    body["leads_csv"] = "email,first_name\nada@example.com,Ada\n".into();
    body["send"] = true.into();
    let answer = writer.post(CAMPAIGNS, &body).await?;
    assert!(answer.problem(403, "forbidden")["detail"].as_str().unwrap_or_default().contains("campaigns:send"));
    assert_eq!(writer.get(CAMPAIGNS).await?.ok(200)["items"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_in_a_draft_is_refused_with_a_pointer() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for place in ["/name", "/subject", "/text", "/html", "/from/name", "/from/email"] {
        let mut body = draft();
        body["html"] = "<p></p>".into();
        *body.pointer_mut(place).expect("a member") = "a\0b".into();
        let answer = api.post(CAMPAIGNS, &body).await?;
        answer.problem(422, "invalid_body");
        assert_eq!(answer.only_error().0, place);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_are_bounded_and_match_the_mail() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut body = draft();
    body["subject"] = "{{ word }}{{ word }}".into();
    body["html"] = "<a href=\"{{ link }}\">{{ word }}</a>".into();
    body["text"] = "{{ word }}".into();
    body["leads_csv"] = "email,word,link\nada@example.com,x,https://x.example/a/b?c=1&d=2\n".into();
    let path = format!("{CAMPAIGNS}/{}/preview", api.post(CAMPAIGNS, &body).await?.id());
    let answer = api.post(&path, &json!({})).await?;
    assert_eq!(answer.ok(200)["html"], "<a href=\"https://x.example/a/b?c=1&amp;d=2\">x</a>", "links stay readable");

    let values = |bytes: usize| json!({ "variables": { "link": "", "word": "w".repeat(bytes - r#"{"link":"","word":""}"#.len()) } });
    let answer = api.post(&path, &values(64 * 1024)).await?;
    assert_eq!(answer.ok(200)["subject"], "w".repeat(240), "a mail's subject is cut there too");
    let answer = api.post(&path, &values(64 * 1024 + 1)).await?;
    answer.problem(422, "invalid_body");
    assert_eq!(answer.only_error(), ("/variables", "variables are at most 64 KiB"));
    for wrong in [json!([]), json!(1), json!("x")] {
        api.post(&path, &json!({ "variables": wrong })).await?.problem(422, "invalid_body");
    }
    api.post(&path, &json!({ "variables": null })).await?.ok(200);

    let mut long = draft();
    long["subject"] = "s".repeat(2_048).into();
    api.post(CAMPAIGNS, &long).await?.ok(201);
    long["subject"] = "s".repeat(2_049).into();
    let answer = api.post(CAMPAIGNS, &long).await?;
    answer.problem(422, "invalid_body");
    assert_eq!(answer.only_error(), ("/subject", "subject: the template is longer than 2 KiB"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_sent_at_once_is_idempotent_and_atomic() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let mut body = draft();
    body["send"] = true.into();
    let detail = api.post(CAMPAIGNS, &body).await?.problem(409, "conflict")["detail"].to_string();
    assert!(detail.contains("import leads first"), "{detail}");
    body["leads_csv"] = "email,first_name\nada@example.com,Ada\nbob@example.com,Bob\n".into();
    let first = api.post_once(CAMPAIGNS, "key", &body).await?;
    assert_eq!((&first.ok(201)["state"], &first.body["progress"]["pending"]), (&json!("sending"), &json!(2)));
    let again = api.post_once(CAMPAIGNS, "key", &body).await?;
    assert_eq!((again.header("idempotency-replayed"), again.id()), ("true", first.id()));
    body["text"] = "{{ nobody }}".into();
    api.post_once(CAMPAIGNS, "key", &body).await?.problem(422, "idempotency_key_reused");
    api.post_once(CAMPAIGNS, "other", &body).await?.problem(422, "invalid_body");
    body["text"] = "Dear {{ first_name }}".into();
    api.post_once(CAMPAIGNS, "other", &body).await?.ok(201);
    assert_eq!(api.get(CAMPAIGNS).await?.ok(200)["items"].as_array().map(Vec::len), Some(2));
    Ok(())
}
