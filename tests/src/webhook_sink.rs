//! A webhook receiver on loopback with its own signature check: HMAC implemented from RFC 2104 over
//! SHA-256.
//!
//! Invariant: a request is recorded once it has been read in full, before the response; responses
//! follow the script, then 200.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

/// One request, as received.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The response to a request.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
    /// The delay before the response.
    pub delay: Duration,
}

/// The running receiver; stopped on `Drop`.
#[derive(Debug)]
pub struct WebhookSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    script: Mutex<VecDeque<Reply>>,
    changed: watch::Sender<()>,
}

impl WebhookSink {
    /// A receiver that responds with these statuses in order, and with 200 from then on.
    pub async fn answering(statuses: &[u16]) -> Result<Self> {
        Self::start(statuses.iter().map(|&status| Reply { status, ..Reply::default() }).collect()).await
    }

    pub async fn start(script: Vec<Reply>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind the webhook sink")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { script: Mutex::new(script.into()), ..Shared::default() });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Stops with the task, never on its own.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, server })
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// All requests so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until `count` requests have arrived, and returns them.
    ///
    /// # Panics
    /// If `patience` passes first.
    pub async fn wait_for(&self, count: usize, patience: Duration) -> Vec<Received> {
        let mut changed = self.shared.changed.subscribe();
        let reached = changed.wait_for(|()| self.received().len() >= count);
        let reached = timeout(patience, reached).await.is_ok();
        assert!(reached, "webhook sink: {} of {count} requests within {patience:?}", self.received().len());
        self.received()
    }
}

impl Drop for WebhookSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a message is JSON")
    }

    /// A header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Fails unless one of the signatures is that of `secret` over the received bytes.
    pub fn verify(&self, secret: &str) -> Result<()> {
        let key = BASE64.decode(secret.strip_prefix("whsec_").context("no secret")?.as_bytes())?;
        let signed = [self.header("webhook-id"), ".", self.header("webhook-timestamp"), "."].concat();
        let mac = Hmac::<Sha256>::new_from_slice(&key)?.chain_update(signed).chain_update(&self.body);
        let expected = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
        ensure!(self.header("webhook-signature").split(' ').any(|given| given == expected), "no signature fits");
        Ok(())
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    lock(&shared.received).push(Received { headers, body });
    let reply = lock(&shared.script).pop_front().unwrap_or(Reply { status: 200, ..Reply::default() });
    shared.changed.send_replace(());
    tokio::time::sleep(reply.delay).await;
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match reply.location {
        Some(location) => (status, [("location", location)], reply.body).into_response(),
        None => (status, reply.body).into_response(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
