//! `api demo --campaign`: sends a campaign as an API client would, from the upload to the last
//! mail.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use url::Url;

const SUBJECT: &str = "Rota news for {{ first_name }}";
const TEXT: &str = "Dear {{ first_name }} {{ last_name }},\n\nhow are things at {{ company }} in {{ city }}?\n\nYours, Rota\n\nUnsubscribe: {{ unsubscribe_url }}\n";
const HTML: &str = "<p>Dear {{ first_name }} {{ last_name }},</p><p>how are things at <b>{{ company }}</b> in {{ city }}?</p>\
    <p>Yours, Rota</p><p><a href=\"{{ unsubscribe_url }}\">Unsubscribe</a></p>\n";
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The demo fails after this long without progress.
const PATIENCE: Duration = Duration::from_mins(1);

/// Drafts, fills, previews and sends a campaign, waits for its completion and prints the result.
pub async fn send(leads: &Path, base_url: &Url, api_key: &str) -> anyhow::Result<()> {
    let csv = tokio::fs::read(leads).await.with_context(|| format!("cannot read {}", leads.display()))?;
    let api = Api { client: Client::new(), base_url: base_url.clone(), key: api_key.to_owned() };
    let draft = json!({ "name": "Demo", "subject": SUBJECT, "text": TEXT, "html": HTML, "from": { "email": "news@rota.example", "name": "Rota" } });
    let campaign = api.call(api.post("campaigns").json(&draft)).await?;
    let path = format!("campaigns/{}", campaign["id"].as_str().context("the campaign has no id")?);
    let report = api.call(api.post(&format!("{path}/leads")).header("content-type", "text/csv").body(csv)).await?;
    tell(&format!(
        "imported: {} rows, {} leads, {} duplicates merged, {} invalid",
        report["rows_read"], report["accepted"], report["duplicates_merged"], report["invalid"]
    ))?;
    for error in report["errors"].as_array().into_iter().flatten() {
        tell(&format!(
            "  line {}: {} ({})",
            error["line"],
            error["reason"].as_str().unwrap_or_default(),
            error["value"].as_str().unwrap_or_default()
        ))?;
    }
    let preview = api.call(api.post(&format!("{path}/preview")).json(&json!({}))).await?;
    tell(&format!("preview: to {}, subject {}", preview["to"], preview["subject"]))?;
    api.call(api.post(&format!("{path}/send")).json(&json!({}))).await?;
    let progress = watch(&api, &path).await?;
    if progress["sent"] != report["accepted"] {
        bail!("{} leads were imported but {} mails sent: {progress}", report["accepted"], progress["sent"]);
    }
    tell(&format!("done: {} mails sent", progress["sent"]))
}

/// Prints the progress until the campaign is completed, and returns the last counts.
async fn watch(api: &Api, path: &str) -> anyhow::Result<Value> {
    let (mut before, mut changed) = (Value::Null, tokio::time::Instant::now());
    loop {
        let campaign = api.call(api.get(path)).await?;
        let progress = campaign["progress"].clone();
        if campaign["state"] == "completed" {
            return Ok(progress);
        }
        if progress != before {
            tell(&format!(
                "{}: {} sent, {} queued, {} pending",
                campaign["state"].as_str().unwrap_or_default(),
                progress["sent"],
                progress["queued"],
                progress["pending"]
            ))?;
            (before, changed) = (progress, tokio::time::Instant::now());
        } else if changed.elapsed() > PATIENCE {
            bail!("no mail in {} s; is a worker running? {progress}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

struct Api {
    client: Client,
    base_url: Url,
    key: String,
}

impl Api {
    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base_url.as_str().trim_end_matches('/'))
    }

    async fn call(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = request.header("x-api-key", &self.key).send().await.context("the API does not respond")?;
        let status = response.status();
        let body: Value = response.json().await.context("the API's response is not JSON")?;
        if !status.is_success() {
            bail!("{status}: {body}");
        }
        Ok(body)
    }
}

fn tell(text: &str) -> anyhow::Result<()> {
    super::answer(text)
}
