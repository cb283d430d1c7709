//! The mail port: one way to hand a mail to a relay or, in development, to a folder.
//!
//! Invariant: [`Mailer::send`] always answers within its deadline, and its answer says whether a retry can help and
//! whether a repeat could double. Read on in `dialogue` (which failure means what), `target` (when TLS is
//! required), `message` (what a mail looks like), and in `docs/decisions/0003-mail.md` for the reasons.

mod address;
mod dialogue;
mod error;
mod folder;
mod message;
mod pool;
mod stream;
mod target;
pub(crate) mod text;

#[cfg(test)]
mod scripted_relay;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use deadpool::managed::{Pool, QueueMode};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

pub use self::{
    address::normalize_address,
    error::{InvalidAddress, MailConfigError, MailError, MailStage},
    message::{Mailbox, OutgoingMail},
};
use self::{
    dialogue::{Progress, deliver},
    pool::Connector,
    target::Target,
};

/// How mails are sent, beside where to (`SMTP_URL`).
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// Connections to the relay at most, at least 1. `ROTA_SMTP_CONNECTIONS`, default 4.
    pub connections: usize,
    /// For one whole send, from the wait for a connection to the relay's last reply. `ROTA_MAIL_TIMEOUT_MS`,
    /// default 15 s.
    pub timeout: Duration,
    /// The name said in EHLO; the machine's host name if `None`.
    pub hello_name: Option<String>,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self { connections: 4, timeout: Duration::from_secs(15), hello_name: None }
    }
}

/// Proof that a mail was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailReceipt {
    pub message_id: String,
    /// What the relay said (`250 2.0.0 queued as 4F1…`), or the path of the file.
    pub reply: String,
}

/// Sends mails. A clone is cheap and shares the connections.
#[derive(Clone)]
pub struct Mailer {
    way: Arc<Way>,
    timeout: Duration,
}

enum Way {
    Folder(PathBuf),
    Relay(Pool<Connector>),
}

impl Mailer {
    /// A mailer for `smtp_url`: `file:DIRECTORY`, `smtp://[user:password@]host[:port][?tls=required|none][&ca=FILE]`
    /// or `smtps://…`. Opens no connection yet; the CA file is read at once.
    pub fn from_url(smtp_url: &str, settings: MailSettings) -> Result<Self, MailConfigError> {
        if settings.connections == 0 {
            return Err(MailConfigError::Settings("at least one connection is needed"));
        }
        if settings.timeout.is_zero() {
            return Err(MailConfigError::Settings("the timeout must be more than zero"));
        }
        let way = match Target::parse(smtp_url)? {
            Target::Folder(folder) => Way::Folder(folder),
            Target::Relay(relay) => {
                let connector = Connector::new(relay, hello(settings.hello_name)?)?;
                Way::Relay(pool_of(connector, settings.connections))
            }
        };
        Ok(Self { way: Arc::new(way), timeout: settings.timeout })
    }

    /// Hands one mail over and waits for the answer. On `Ok` the relay has taken responsibility for the mail, or the
    /// file is complete.
    pub async fn send(&self, mail: &OutgoingMail) -> Result<MailReceipt, MailError> {
        let built = mail.build()?;
        let mut progress = Progress::new();
        let sending = async {
            match self.way.as_ref() {
                Way::Folder(folder) => folder::store(folder, &built).await,
                Way::Relay(pool) => deliver(pool, &built, &mut progress).await,
            }
        };
        let reply = match timeout(self.timeout, sending).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(self.timed_out(&progress)),
        };
        Ok(MailReceipt { message_id: built.message_id, reply })
    }

    fn timed_out(&self, progress: &Progress) -> MailError {
        let what = match progress.stage {
            MailStage::Connect => "all connections were busy or the relay could not be reached",
            _ => "the relay did not answer",
        };
        MailError::Transient {
            stage: progress.stage,
            code: None,
            reason: format!("{what} within {} ms", self.timeout.as_millis()),
            after_data: progress.after_data,
        }
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way: &dyn fmt::Debug = match self.way.as_ref() {
            Way::Folder(folder) => folder,
            Way::Relay(_) => &"relay",
        };
        f.debug_struct("Mailer").field("way", way).field("timeout", &self.timeout).finish()
    }
}

/// Last in, first out: under light load one connection stays warm and the others age out.
fn pool_of(connector: Connector, connections: usize) -> Pool<Connector> {
    Pool::builder(connector)
        .max_size(connections)
        .queue_mode(QueueMode::Lifo)
        .build()
        .expect("a pool without time-outs of its own needs no runtime")
}

fn hello(name: Option<String>) -> Result<ClientId, MailConfigError> {
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    match name {
        None => Ok(ClientId::default()),
        Some(name) if !name.is_empty() && plain(&name) => Ok(ClientId::Domain(name)),
        Some(_) => Err(MailConfigError::Settings("the EHLO name must be a host name")),
    }
}
