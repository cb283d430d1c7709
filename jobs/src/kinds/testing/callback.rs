//! `callback`: POSTs a token to a URL, so that an effect can be counted from outside.
//!
//! The guard of all outbound requests applies here too; it also permits loopback addresses.

use std::sync::LazyLock;

use anyhow::{Context as _, anyhow};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
    ports::outbound::Outbound,
};

static OUTBOUND: LazyLock<Result<Outbound, reqwest::Error>> = LazyLock::new(Outbound::for_test_kinds);

/// POSTs a token to a URL, so that an effect can be counted from outside.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The URL.
    url: String,
    /// The token, sent as `{"token": …}`.
    token: String,
}

impl Job for Callback {
    const KIND: &'static str = "callback";
    const DESCRIPTION: &'static str = "POSTs a token to a URL, so that an effect can be counted from outside.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, _context: &JobContext) -> Result<Success, JobError> {
        let body = serde_json::json!({ "token": self.token }).to_string();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let outbound = OUTBOUND.as_ref().context("callback")?;
        let response = outbound.post(&self.url, headers, body).await.context("callback")?;
        if response.status >= 400 {
            return Err(anyhow!("callback: the server answered {}", response.status).into());
        }
        Ok(Success::Done)
    }
}
