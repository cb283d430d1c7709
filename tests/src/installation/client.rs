//! A tenant's client of the API.
//!
//! Invariant: a response with any status is a result; only the lack of a response is an error. Each
//! response that is parsed is compared with the OpenAPI document (`openapi.rs`).

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{eventually::eventually, openapi, tls::install_crypto_provider};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends requests with an API key.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: Client,
    base_url: String,
    key: String,
}

/// A response, read in full.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// `Null` if the body is not JSON.
    pub body: Value,
}

impl Answer {
    /// Returns the body if the status is `status`, otherwise an error.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl ApiClient {
    pub(super) fn new(base_url: String, key: String) -> Result<Self> {
        install_crypto_provider();
        openapi::load();
        Ok(Self { http: Client::builder().timeout(TIMEOUT).no_proxy().build()?, base_url, key })
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.http.get(self.url(path))).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(self.http.delete(self.url(path))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    /// Posts text that may be invalid JSON, with the content type of JSON.
    pub async fn post_text(&self, path: &str, body: &str) -> Result<Answer> {
        let request = self.http.post(self.url(path)).header("content-type", "application/json");
        self.send(request.body(body.to_owned())).await
    }

    /// Posts text as JSON and reads the response in full without parsing it. For floods during a
    /// measurement.
    pub async fn post_status(&self, path: &str, body: &str) -> Result<StatusCode> {
        let request = self.http.post(self.url(path)).header("content-type", "application/json");
        let answer = request.header("x-api-key", &self.key).body(body.to_owned()).send().await?;
        let status = answer.status();
        answer.bytes().await?;
        Ok(status)
    }

    /// Posts under an idempotency key, so that the request can be repeated until a response
    /// arrives.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        self.send(self.http.post(self.url(path)).header("idempotency-key", key).json(body)).await
    }

    /// Posts a CSV file.
    pub async fn upload(&self, path: &str, csv: &str) -> Result<Answer> {
        self.send(self.http.post(self.url(path)).header("content-type", "text/csv").body(csv.to_owned())).await
    }

    /// Posts a CSV file as a stream.
    pub async fn upload_stream(&self, path: &str, csv: reqwest::Body) -> Result<Answer> {
        self.send(self.http.post(self.url(path)).header("content-type", "text/csv").body(csv)).await
    }

    /// The address of the API, for clients that write raw bytes.
    pub fn address(&self) -> Result<SocketAddr> {
        self.base_url.trim_start_matches("http://").parse().context("the API is at an address of this machine")
    }

    /// Sends the request that a mail program makes for its unsubscribe button (RFC 8058): this
    /// form, without a key and without cookies.
    pub async fn one_click(&self, link: &str) -> Result<StatusCode> {
        let form = "List-Unsubscribe=One-Click";
        let request = self.http.post(link).header("content-type", "application/x-www-form-urlencoded").body(form);
        Ok(request.send().await?.status())
    }

    /// Creates a campaign with a personalised subject and text, and uploads its leads. Returns its
    /// path.
    pub async fn campaign(&self, name: &str, leads_csv: &str) -> Result<String> {
        let campaign = self.post("campaigns", &draft(name)).await?.expect(201)?;
        let path = format!("campaigns/{}", campaign["id"].as_str().context("a campaign has an id")?);
        self.upload(&format!("{path}/leads"), leads_csv).await?.expect(200)?;
        Ok(path)
    }

    /// Creates a campaign with its leads and starts it, all in one request. Returns its path.
    pub async fn campaign_at_once(&self, name: &str, leads_csv: &str) -> Result<String> {
        let mut draft = draft(name);
        draft["leads_csv"] = leads_csv.into();
        draft["send"] = true.into();
        let campaign = self.post("campaigns", &draft).await?.expect(201)?;
        Ok(format!("campaigns/{}", campaign["id"].as_str().context("a campaign has an id")?))
    }

    /// Starts a campaign.
    pub async fn send_campaign(&self, path: &str) -> Result<Value> {
        self.post(&format!("{path}/send"), &json!({})).await?.expect(202)
    }

    /// Waits until `judge` accepts the campaign; the API may be unavailable meanwhile.
    pub async fn campaign_when(
        &self,
        path: &str,
        timeout: Duration,
        what: &str,
        judge: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(timeout, what, async || {
            let campaign = self.get(path).await.ok()?.expect(200).ok()?;
            judge(&campaign).then_some(campaign)
        })
        .await
    }

    /// Waits until a campaign is completed and returns its progress.
    pub async fn completed(&self, path: &str, timeout: Duration) -> Value {
        let completed = |campaign: &Value| campaign["state"] == "completed";
        self.campaign_when(path, timeout, "the campaign is completed", completed).await["progress"].clone()
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let (client, request) = request.header("x-api-key", &self.key).build_split();
        let request = request?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = client.execute(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await?;
        openapi::check(&method, &path, status.as_u16(), &headers, &body);
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base_url)
    }
}

fn draft(name: &str) -> Value {
    json!({
        "name": name,
        "subject": "News for {{ first_name }}",
        "text": "Dear {{ first_name }},\n\nthis goes to {{ email }}.\n\nNo more: {{ unsubscribe_url }}\n",
        "html": "<p>Dear {{ first_name }},</p><p><a href=\"{{ unsubscribe_url }}\">No more</a></p>",
        "from": { "email": "news@rota.example", "name": "Rota" },
    })
}
