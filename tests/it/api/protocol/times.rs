//! Timestamps in requests: one form and one range everywhere, and no statement fails because of
//! one.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::test_app::{Answer, ApiClient, TestApp};

use crate::api::campaign;

const REFUSED: [&str; 12] = [
    "-4713-01-01T00:00:00Z",
    "-262143-01-01T00:00:00Z",
    "+262142-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999Z",
    "1970-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    "10000-01-01T00:00:00Z",
    "2026-11-21 15:00:00Z",
    "2026-11-21T15:00:00",
    "2026-11-21T15:00:60Z",
    "soon",
];

/// Sends a time in one of the request members that take one; returns the response and the member's
/// pointer.
async fn send(api: &ApiClient, campaign: &str, member: &str, time: &Value) -> Result<(Answer, String)> {
    let (place, answer) = match member {
        "CampaignSend" => {
            ("/send_at", api.post(&format!("/api/v1/campaigns/{campaign}/send"), &json!({ "send_at": time })).await?)
        }
        "JobRunAt" => ("/run_at", api.post("/api/v1/jobs", &json!({ "kind": "noop", "run_at": time })).await?),
        "JobExpiresAt" => {
            ("/expires_at", api.post("/api/v1/jobs", &json!({ "kind": "noop", "expires_at": time })).await?)
        }
        "BatchRunAt" => (
            "/jobs/0/run_at",
            api.post("/api/v1/jobs/batch", &json!({ "jobs": [{ "kind": "noop", "run_at": time }] })).await?,
        ),
        name => {
            let (action, state, bound) = match name {
                "RetryAfter" => ("retry", "discarded", "finalized_after"),
                "RetryBefore" => ("retry", "discarded", "finalized_before"),
                "CancelAfter" => ("cancel", "available", "finalized_after"),
                _ => ("cancel", "available", "finalized_before"),
            };
            let mut filter = json!({ "state": state });
            filter[bound] = time.clone();
            let body = json!({ "filter": filter, "dry_run": true });
            (bound, api.post(&format!("/api/v1/jobs/{action}"), &body).await?)
        }
    };
    Ok((answer, place.to_owned()))
}

const MEMBERS: [&str; 8] = [
    "JobRunAt",
    "JobExpiresAt",
    "BatchRunAt",
    "RetryAfter",
    "RetryBefore",
    "CancelAfter",
    "CancelBefore",
    "CampaignSend",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_time_is_refused_with_pointer_value_and_expectation() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    let campaign = campaign(&api).await?.to_string();
    for member in MEMBERS {
        for time in REFUSED {
            let (answer, place) = send(&api, &campaign, member, &json!(time)).await?;
            answer.problem(422, "invalid_body");
            let (pointer, detail) = answer.only_error();
            assert!(pointer.ends_with(&place), "{member} {time}: {}", answer.text);
            assert!(detail.contains(time) && detail.contains("1970") && detail.contains("9999"), "{member}: {detail}");
        }
        for other in [json!(1_764_000_000), json!(true), json!([])] {
            send(&api, &campaign, member, &other).await?.0.problem(422, "invalid_body");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_the_range_are_accepted() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for member in MEMBERS {
        for time in ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"] {
            let campaign = campaign(&api).await?.to_string();
            let (answer, _) = send(&api, &campaign, member, &json!(time)).await?;
            // A job that expires before it can start is refused for that reason, not for the form
            // of the time.
            let expected = if (member, time.starts_with("1970")) == ("JobExpiresAt", true) { 422 } else { 200 };
            assert!(answer.status == expected || answer.status == 202, "{member} {time}: {}", answer.text);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_returned_in_utc_and_microseconds() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for (sent, shown) in [
        ("2990-06-30T23:59:60.25Z", "2990-07-01T00:00:00.250Z"),
        ("2990-01-01t01:00:00.1234567+05:30", "2989-12-31T19:30:00.123456Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        let job = api.post("/api/v1/jobs", &json!({ "kind": "noop", "run_at": sent, "expires_at": null })).await?.id();
        assert_eq!(api.get(&format!("/api/v1/jobs/{job}")).await?.ok(200)["run_at"], shown, "{sent}");
        let id = campaign(&api).await?;
        let answer = api.post(&format!("/api/v1/campaigns/{id}/send"), &json!({ "send_at": sent })).await?;
        assert_eq!((&answer.ok(202)["send_at"], &answer.body["state"]), (&json!(shown), &json!("scheduled")), "{sent}");
    }
    Ok(())
}

/// A new timestamp must use the shared type too: every `date-time` member of a request has its
/// pattern.
#[tokio::test(flavor = "multi_thread")]
async fn every_time_in_a_request_has_the_same_type() -> Result<()> {
    let app = TestApp::start().await?;
    let document = app.anonymous().get("/api/openapi.json").await?.ok(200).clone();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("a path item is an object")? {
            let mut open = vec![operation["requestBody"].clone(), operation["parameters"].clone()];
            let mut known = Vec::new();
            while let Some(value) = open.pop() {
                if value["format"] == "date-time" {
                    assert_eq!(
                        value["pattern"], document["components"]["schemas"]["Timestamp"]["pattern"],
                        "{method} {path}"
                    );
                    seen += 1;
                }
                if let Some(reference) = value["$ref"].as_str().filter(|it| !known.contains(&(*it).to_owned())) {
                    known.push(reference.to_owned());
                    open.push(
                        document.pointer(reference.trim_start_matches('#')).context("a reference resolves")?.clone(),
                    );
                }
                match value {
                    Value::Object(members) => open.extend(members.into_iter().map(|(_, value)| value)),
                    Value::Array(items) => open.extend(items),
                    _ => {}
                }
            }
        }
    }
    assert!(seen >= 5, "only {seen} timestamps were found");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_out_of_range_and_malformed_ids_are_refused() -> Result<()> {
    let app = TestApp::start().await?;
    let api = app.tenant("acme").await?.api;
    for member in ["priority", "max_attempts"] {
        for number in [
            "0",
            "-1",
            "101",
            "32768",
            "-32769",
            "2147483648",
            "9223372036854775808",
            "18446744073709551616",
            "1.0",
            "1e2",
            "\"1\"",
        ] {
            let body: Value = serde_json::from_str(&format!(r#"{{"kind":"noop","{member}":{number}}}"#))?;
            let answer = api.post("/api/v1/jobs", &body).await?;
            answer.problem(422, "invalid_body");
            assert_eq!(answer.only_error().0, format!("/{member}"), "{number}");
        }
    }
    let job = api.post("/api/v1/jobs", &json!({ "kind": "noop" })).await?.id();
    api.get(&format!("/api/v1/jobs/{}", job.to_string().to_uppercase())).await?.ok(200);
    for other in [job.simple().to_string(), job.urn().to_string(), format!("%7B{job}%7D")] {
        api.get(&format!("/api/v1/jobs/{other}")).await?.problem(404, "not_found");
    }
    for other in [job.simple().to_string(), job.urn().to_string(), job.braced().to_string(), "#+0".into(), "#".into()] {
        let answer = api
            .post("/api/v1/jobs/batch", &json!({ "jobs": [{ "kind": "noop" }, { "kind": "noop", "after": [other] }] }))
            .await?;
        assert_eq!(answer.ok(202)["results"][1]["errors"][0]["pointer"], "/after/0", "{}", answer.text);
    }
    for cursor in ["A".repeat(21), "A".repeat(23), "A".repeat(5_000), "B".repeat(22), "=".into(), "%2B".repeat(22)] {
        api.get(&format!("/api/v1/jobs?cursor={cursor}")).await?.problem(400, "invalid_query");
    }
    Ok(())
}
