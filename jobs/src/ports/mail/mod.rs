//! The mail port: hands a mail to a relay or, in development, to a folder.
//!
//! Invariant: [`Mailer::send`] always returns within its deadline, and its result says whether a
//! retry can succeed and whether a repeat could cause a duplicate. Next: `relay` (the path of one
//! mail), `dialogue` and `reply` (SMTP), `verdict` (the meaning of replies), `share` and `health`
//! (what tenants share), `target` (when TLS is required), `message` (the form of a mail), and
//! `docs/decisions/0003-mail.md` for the reasons.

mod address;
mod dialogue;
mod error;
mod folder;
mod health;
mod message;
mod pool;
mod relay;
mod reply;
mod session;
mod share;
mod stage;
mod stream;
mod target;
pub(crate) mod text;
mod verdict;

#[cfg(test)]
mod scripted_relay;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use lettre::transport::smtp::extension::ClientId;
use shared::tenancy::TenantId;
use tokio::time::timeout;

pub use self::{
    address::normalize_address,
    error::{Blame, InvalidAddress, MailConfigError, MailError},
    message::{Mailbox, OutgoingMail},
    stage::MailStage,
    verdict::EnhancedCode,
};
use self::{pool::Connector, relay::RelayLink, target::Target};

/// How mails are sent, apart from the destination (`SMTP_URL`).
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// Maximum number of connections to the relay, at least 1. `ROTA_SMTP_CONNECTIONS`, default 4.
    pub connections: usize,
    /// Time-out of a whole send, from the connection to the relay's last reply.
    /// `ROTA_MAIL_TIMEOUT_MS`, default 15 s.
    pub timeout: Duration,
    /// Maximum time between two checks of an unavailable relay. `ROTA_RELAY_PROBE_MS`,
    /// default 30 s.
    pub relay_probe: Duration,
    /// Outage after which campaigns are paused until the relay is back. `ROTA_RELAY_PATIENCE_MS`,
    /// default 1 min.
    pub relay_patience: Duration,
    /// The name sent in EHLO; the machine's host name if `None`.
    pub hello_name: Option<String>,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            connections: 4,
            timeout: Duration::from_secs(15),
            relay_probe: Duration::from_secs(30),
            relay_patience: Duration::from_mins(1),
            hello_name: None,
        }
    }
}

/// Proof that a mail was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailReceipt {
    pub message_id: String,
    /// The relay's reply (`250 2.0.0 queued as 4F1…`), or the path of the file.
    pub reply: String,
}

/// Sends mails. Clones are cheap and share the connections.
#[derive(Clone)]
pub struct Mailer {
    way: Arc<Way>,
    timeout: Duration,
    relay_patience: Duration,
    relay_probe: Duration,
}

#[expect(clippy::large_enum_variant, reason = "a mailer has one, in an `Arc`")]
enum Way {
    Folder(PathBuf),
    Relay(RelayLink),
}

impl Mailer {
    /// A mailer for `smtp_url`: `file:DIRECTORY`,
    /// `smtp://[user:password@]host[:port][?tls=required|none][&ca=FILE]` or `smtps://…`. Opens no
    /// connection yet, but reads the CA file.
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
                Way::Relay(RelayLink::new(connector, settings.connections, settings.timeout, settings.relay_probe))
            }
        };
        let MailSettings { timeout, relay_patience, relay_probe, .. } = settings;
        Ok(Self { way: Arc::new(way), timeout, relay_patience, relay_probe })
    }

    /// Sends one mail of a tenant and waits for the result. On `Ok` the relay has taken
    /// responsibility for the mail, or the file is complete.
    pub async fn send(&self, tenant: TenantId, mail: &OutgoingMail) -> Result<MailReceipt, MailError> {
        let built = mail.build()?;
        let reply = match self.way.as_ref() {
            Way::Relay(relay) => relay.send(tenant, &built).await?,
            Way::Folder(folder) => match timeout(self.timeout, folder::store(folder, &built)).await {
                Ok(outcome) => outcome?,
                Err(_) => return Err(MailError::transient(MailStage::File, "writing the file took too long")),
            },
        };
        Ok(MailReceipt { message_id: built.message_id, reply })
    }

    /// Checks whether the relay is usable.
    pub async fn probe(&self) -> Result<(), MailError> {
        match self.way.as_ref() {
            Way::Folder(_) => Ok(()),
            Way::Relay(relay) => relay.probe().await,
        }
    }

    /// Whether the relay has been unavailable for so long that sending should pause.
    pub fn is_relay_given_up(&self) -> bool {
        match self.way.as_ref() {
            Way::Folder(_) => false,
            Way::Relay(relay) => relay.away_for().is_some_and(|away| away >= self.relay_patience),
        }
    }

    /// Maximum time between two checks of an unavailable relay.
    pub const fn relay_probe(&self) -> Duration {
        self.relay_probe
    }
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way: &dyn fmt::Debug = match self.way.as_ref() {
            Way::Folder(folder) => folder,
            Way::Relay(_) => &"relay",
        };
        f.debug_struct("Mailer").field("way", way).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn hello(name: Option<String>) -> Result<ClientId, MailConfigError> {
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    match name {
        None => Ok(ClientId::default()),
        Some(name) if !name.is_empty() && plain(&name) => Ok(ClientId::Domain(name)),
        Some(_) => Err(MailConfigError::Settings("the EHLO name must be a host name")),
    }
}
