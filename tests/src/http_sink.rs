//! An HTTP server on loopback that counts the tokens posted to it: the target of the `callback`
//! kind.
//!
//! Invariant: a token is counted once its request has been read in full, before the response. A
//! hung or refused request counts too, because its effect has taken place. The response is
//! configurable per token.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How the sink responds to a request after counting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Answer(StatusCode),
    /// Responds with 200 after this delay.
    Delay(Duration),
    /// Responds with 200 only after `release`, or once another behaviour is set.
    Hang,
}

/// A running server; stopped on `Drop`.
#[derive(Debug)]
pub struct HttpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Recorded>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Recorded {
    bodies: Vec<Bytes>,
    counts: HashMap<String, usize>,
    default: Behaviour,
    behaviours: HashMap<String, Behaviour>,
}

impl Default for Recorded {
    fn default() -> Self {
        let default = Behaviour::Answer(StatusCode::OK);
        Self { bodies: Vec::new(), counts: HashMap::new(), default, behaviours: HashMap::new() }
    }
}

impl HttpSink {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind the HTTP sink")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Stops with the task, never on its own.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to post to. Any other path on this server works too.
    pub fn url(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// Applies from now on to this token, including its requests that already hang.
    pub fn set(&self, token: &str, behaviour: Behaviour) {
        self.shared.state().behaviours.insert(token.to_owned(), behaviour);
        self.shared.changed.send_replace(());
    }

    /// Applies to all tokens without a behaviour of their own.
    pub fn set_default(&self, behaviour: Behaviour) {
        self.shared.state().default = behaviour;
        self.shared.changed.send_replace(());
    }

    /// Responds with 200 to the hanging requests of this token, and to later ones at once.
    pub fn release(&self, token: &str) {
        self.set(token, Behaviour::Answer(StatusCode::OK));
    }

    /// The number of requests with this token.
    pub fn count(&self, token: &str) -> usize {
        self.shared.state().counts.get(token).copied().unwrap_or(0)
    }

    /// The number of all requests, including those without a token.
    pub fn total(&self) -> usize {
        self.shared.state().bodies.len()
    }

    pub fn tokens(&self) -> HashMap<String, usize> {
        self.shared.state().counts.clone()
    }

    /// All bodies so far, in order of arrival.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.shared.state().bodies.clone()
    }

    /// Waits, without polling, for the first request with the token.
    ///
    /// # Panics
    /// If `patience` passes first.
    pub async fn wait_for(&self, token: &str, patience: Duration) {
        self.wait_for_count(token, 1, patience).await;
    }

    /// Like `wait_for`, until `count` requests with the token have arrived.
    ///
    /// # Panics
    /// If `patience` passes first.
    pub async fn wait_for_count(&self, token: &str, count: usize, patience: Duration) {
        let reached = self.shared.reaches(patience, || self.count(token) >= count).await;
        assert!(reached, "HTTP sink: {} of {count} requests with {token:?} within {patience:?}", self.count(token));
    }

    /// Like `wait_for`, until `count` requests of any kind have arrived.
    ///
    /// # Panics
    /// If `patience` passes first.
    pub async fn wait_total(&self, count: usize, patience: Duration) {
        let reached = self.shared.reaches(patience, || self.total() >= count).await;
        assert!(reached, "HTTP sink: {} of {count} requests within {patience:?}", self.total());
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        // Connections spawned by axum must not wait for a release that cannot happen any more.
        self.set_default(Behaviour::Answer(StatusCode::SERVICE_UNAVAILABLE));
        self.shared.state().behaviours.clear();
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, body: Bytes) -> Option<String> {
        let token = token(&body);
        let mut state = self.state();
        if let Some(token) = &token {
            *state.counts.entry(token.clone()).or_default() += 1;
        }
        state.bodies.push(body);
        drop(state);
        self.changed.send_replace(());
        token
    }

    fn behaviour(&self, token: Option<&str>) -> Behaviour {
        let state = self.state();
        token.and_then(|token| state.behaviours.get(token)).copied().unwrap_or(state.default)
    }

    async fn reaches(&self, patience: Duration, condition: impl Fn() -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        timeout(patience, changed.wait_for(|()| condition())).await.is_ok()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    // Subscribe before checking, so that no release between check and wait is missed.
    let mut changed = shared.changed.subscribe();
    let token = shared.record(body);
    loop {
        match shared.behaviour(token.as_deref()) {
            Behaviour::Answer(status) => return status,
            Behaviour::Delay(delay) => {
                sleep(delay).await;
                return StatusCode::OK;
            }
            Behaviour::Hang => drop(changed.changed().await),
        }
    }
}

fn token(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get("token")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::install_crypto_provider;

    const SECOND: Duration = Duration::from_secs(1);

    async fn post(sink: &HttpSink, token: &str) -> StatusCode {
        install_crypto_provider();
        let body = serde_json::json!({ "token": token });
        reqwest::Client::new().post(sink.url()).json(&body).send().await.unwrap().status()
    }

    #[tokio::test]
    async fn counts_tokens_and_answers_as_told() {
        let sink = HttpSink::start().await.unwrap();
        sink.set("bad", Behaviour::Answer(StatusCode::BAD_GATEWAY));
        assert_eq!(post(&sink, "good").await, 200);
        assert_eq!(post(&sink, "bad").await, 502);
        assert_eq!(post(&sink, "bad").await, 502);
        sink.wait_total(3, SECOND).await;
        assert_eq!((sink.count("good"), sink.count("bad"), sink.count("none")), (1, 2, 0));
        assert_eq!(sink.tokens().len(), 2);
        assert_eq!(sink.bodies()[0], r#"{"token":"good"}"#);
    }

    #[tokio::test]
    async fn hangs_until_released() {
        let sink = Arc::new(HttpSink::start().await.unwrap());
        sink.set("slow", Behaviour::Hang);
        let posting = tokio::spawn({
            let sink = Arc::clone(&sink);
            async move { post(&sink, "slow").await }
        });
        sink.wait_for("slow", SECOND).await;
        assert!(!posting.is_finished());
        assert_eq!(post(&sink, "other").await, 200);
        sink.release("slow");
        assert_eq!(posting.await.unwrap(), 200);
    }

    #[tokio::test]
    async fn delays() {
        let sink = HttpSink::start().await.unwrap();
        sink.set_default(Behaviour::Delay(Duration::from_millis(50)));
        let start = std::time::Instant::now();
        assert_eq!(post(&sink, "late").await, 200);
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    #[should_panic(expected = r#"0 of 1 requests with "never""#)]
    async fn waiting_in_vain_says_for_what() {
        HttpSink::start().await.unwrap().wait_for("never", Duration::from_millis(10)).await;
    }
}
