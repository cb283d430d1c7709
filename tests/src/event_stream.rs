//! A client of server-sent events that exposes everything it receives: events, their ids, and
//! heartbeats.
//!
//! Invariant: events are returned in stream order, and the end of the stream is distinguishable
//! from silence. Each event has the form that the OpenAPI document declares for events of a job.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, Result, ensure};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::openapi;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEvent {
    pub name: String,
    pub id: String,
    pub retry_ms: Option<u64>,
    pub data: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    pub response: Response,
    unread: String,
    events: VecDeque<ServerEvent>,
    heartbeats: usize,
}

impl EventStream {
    /// Sends the request and fails unless the response is an event stream.
    pub async fn open(request: RequestBuilder, last_event_id: Option<&str>) -> Result<Self> {
        let request = match last_event_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.context("no answer")?;
        let status = response.status().as_u16();
        ensure!(status == 200, "{status}");
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        ensure!(media_type == Some("text/event-stream"), "{media_type:?}");
        Ok(Self { response, unread: String::new(), events: VecDeque::new(), heartbeats: 0 })
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Panics
    /// If neither an event nor the end of the stream arrives within `patience`.
    pub async fn next(&mut self, patience: Duration) -> Option<ServerEvent> {
        let next = timeout(patience, self.read()).await;
        next.unwrap_or_else(|_| panic!("neither an event nor the end of the stream within {patience:?}"))
    }

    /// The state of each event from here to the end of the stream.
    pub async fn states_to_the_end(&mut self, patience: Duration) -> Vec<String> {
        let mut states = Vec::new();
        while let Some(event) = self.next(patience).await {
            states.push(event.data["state"].as_str().unwrap_or_default().to_owned());
        }
        states
    }

    /// Whether only heartbeats, or nothing, arrive within `span`.
    pub async fn is_silent_for(&mut self, span: Duration) -> bool {
        timeout(span, self.read()).await.is_err()
    }

    /// Comments received so far.
    pub const fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    async fn read(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let chunk = self.response.chunk().await.ok()??;
            self.unread.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                self.take(&block);
            }
        }
    }

    fn take(&mut self, block: &str) {
        let field = |name: &str| {
            block
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
        };
        match field("data") {
            None => self.heartbeats += 1,
            Some(data) => {
                let event = ServerEvent {
                    name: field("event").unwrap_or_default().to_owned(),
                    id: field("id").unwrap_or_default().to_owned(),
                    retry_ms: field("retry").and_then(|retry| retry.parse().ok()),
                    data: serde_json::from_str(data).unwrap_or_default(),
                };
                let fields = json!({ "event": event.name, "id": event.id, "retry": event.retry_ms, "data": data });
                openapi::check_job_event(&fields);
                self.events.push_back(event);
            }
        }
    }
}
