//! The HTTP API as seen by its clients, over a real connection. `jobs` and `campaigns` mirror the
//! paths, `protocol` covers what all routes have in common.

mod campaigns;
mod document;
mod health;
mod jobs;
mod loss_of_postgres;
mod operations;
mod problems;
mod protocol;
mod suppressions;

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::{eventually::eventually, test_app::ApiClient};
use uuid::Uuid;

/// For anything that must happen; only a failing test takes this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lease of the workers in these tests.
const LEASE: Duration = Duration::from_secs(5);

/// A body with everything that varies between runs replaced.
fn redacted(mut body: Value) -> Value {
    fn redact(value: &mut Value) {
        match value {
            Value::Object(members) => members.values_mut().for_each(redact),
            Value::Array(items) => items.iter_mut().for_each(redact),
            Value::String(text) if Uuid::parse_str(text).is_ok() => *text = "[id]".into(),
            Value::String(text) if chrono::DateTime::parse_from_rfc3339(text).is_ok() => *text = "[time]".into(),
            Value::String(text) => {
                let parts: Vec<&str> =
                    text.split('/').map(|part| if Uuid::parse_str(part).is_ok() { "[id]" } else { part }).collect();
                *text = parts.join("/");
            }
            _ => {}
        }
    }
    redact(&mut body);
    body
}

/// Waits until a job is in this state, and returns it.
async fn job_in_state(api: &ApiClient, id: Uuid, state: &str) -> Value {
    eventually(PATIENCE, &format!("the job is {state}"), async || {
        let answer = api.get(&format!("/api/v1/jobs/{id}")).await.ok()?;
        (answer.status == 200 && answer.body["state"] == state).then_some(answer.body)
    })
    .await
}

/// A valid campaign draft.
fn draft() -> Value {
    serde_json::json!({
        "name": "Spring", "subject": "Hello {{ first_name }}", "text": "Dear {{ first_name }}",
        "from": { "email": "news@rota.example", "name": "Rota" },
    })
}

/// A campaign with one lead, not yet started.
async fn campaign(api: &ApiClient) -> Result<Uuid> {
    let mut draft = draft();
    draft["leads_csv"] = "email,first_name\nada@example.com,Ada\n".into();
    let answer = api.post("/api/v1/campaigns", &draft).await?;
    answer.ok(201);
    Ok(answer.id())
}
