//! A real SMTP server on loopback that keeps what it accepts and injects faults on command.
//!
//! Invariant: a message counts exactly if the sink would have answered 250, whether or not that
//! reply arrived; so `count`, `duplicates` and the journal are the truth about effects. Faults are
//! `Rule`s, see `script`; the dialogue is in `session`, the stored messages in `mailbox`.

mod command;
mod mailbox;
mod message;
mod pace;
mod script;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

pub use message::{Duplicate, ReceivedMessage};
pub use script::{Fault, Rule, Stage};

use crate::tls::TestTls;
use mailbox::Mailbox;
use pace::Pace;
use script::Script;

#[derive(Debug, Default)]
pub struct SinkOptions {
    /// With 0, the default, the kernel chooses the port.
    pub port: u16,
    /// Offers STARTTLS with this certificate.
    pub tls: Option<TestTls>,
    /// Appends one JSON line `{to, message_id, at}` per recipient of each accepted message.
    pub journal: Option<PathBuf>,
    pub accept_per_second: Option<u32>,
}

/// The running server; stopped with its connections on `Drop`.
#[derive(Debug)]
pub struct SmtpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    mailbox: Mailbox,
    script: Script,
    pace: Pace,
    tls: Option<TestTls>,
    starttls_stripped: AtomicBool,
    reply_delay_ms: AtomicU64,
    transactions: AtomicU64,
    connections: AtomicU64,
}

impl SmtpSink {
    pub async fn start() -> Result<Self> {
        Self::start_with(SinkOptions::default()).await
    }

    pub async fn start_with(options: SinkOptions) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.context("bind the SMTP sink")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options)?);
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `SMTP_URL`.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub fn messages(&self) -> Vec<Arc<ReceivedMessage>> {
        self.shared.mailbox.messages()
    }

    pub fn count(&self) -> usize {
        self.shared.mailbox.count()
    }

    pub fn by_recipient(&self, address: &str) -> Vec<Arc<ReceivedMessage>> {
        self.shared.mailbox.by_recipient(address)
    }

    /// All recipients with a message, in lower case, sorted, without repeats.
    pub fn recipients(&self) -> Vec<String> {
        self.shared.mailbox.recipients()
    }

    /// Recipients with more than one message, sorted.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.shared.mailbox.duplicates()
    }

    /// Waits, without polling, until at least `count` messages are accepted.
    ///
    /// # Panics
    /// If `timeout` passes first.
    pub async fn wait_for(&self, count: usize, timeout: Duration) {
        let reached = self.shared.mailbox.reached(count, timeout).await;
        assert!(reached, "SMTP sink: {} of {count} messages within {timeout:?}", self.count());
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Adds a fault after the existing ones.
    pub fn inject(&self, rule: Rule) {
        self.shared.script.add(rule);
    }

    /// Removes all faults and resumes hanging sessions.
    pub fn clear_faults(&self) {
        self.shared.script.clear();
    }

    /// How often a rule was applied at this stage.
    pub fn injected(&self, stage: Stage) -> u64 {
        self.shared.script.injected(stage)
    }

    /// Stops (or resumes) offering STARTTLS, as a man in the middle would.
    pub fn strip_starttls(&self, strip: bool) {
        self.shared.starttls_stripped.store(strip, Ordering::Relaxed);
    }

    /// Delays every reply; zero turns the delay off.
    pub fn set_reply_delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.reply_delay_ms.store(delay_ms, Ordering::Relaxed);
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn new(options: SinkOptions) -> Result<Self> {
        let open = |path: PathBuf| {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("open journal {}", path.display()))
        };
        Ok(Self {
            mailbox: Mailbox::new(options.journal.map(open).transpose()?),
            script: Script::default(),
            pace: Pace::per_second(options.accept_per_second),
            tls: options.tls,
            starttls_stripped: AtomicBool::new(false),
            reply_delay_ms: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        })
    }

    fn starttls_stripped(&self) -> bool {
        self.starttls_stripped.load(Ordering::Relaxed)
    }

    fn reply_delay_ms(&self) -> u64 {
        self.reply_delay_ms.load(Ordering::Relaxed)
    }

    fn next_transaction(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The set owns the sessions, so aborting this task ends them too.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of file descriptors: sleep until sessions end instead of spinning.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while sessions.try_join_next().is_some() {}
        let connection = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        sessions.spawn(session::serve(stream, Arc::clone(&shared), connection));
    }
}
