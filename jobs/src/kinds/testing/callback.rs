//! `callback`: POSTs a token to a URL, so that an effect can be counted from outside.

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Deserialize;

use super::QUEUE;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
};

/// POSTs a token to a URL, so that an effect can be counted from outside.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// Where to.
    url: String,
    /// What is sent, as `{"token": …}`.
    token: String,
}

impl Job for Callback {
    const KIND: &'static str = "callback";
    const DESCRIPTION: &'static str = "POSTs a token to a URL, so that an effect can be counted from outside.";
    const QUEUE: &'static str = QUEUE;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let body = serde_json::json!({ "token": self.token });
        let answer = context.environment().http.post(&self.url).json(&body).send().await.context("callback")?;
        answer.error_for_status().context("callback")?;
        Ok(Success::Done)
    }
}
