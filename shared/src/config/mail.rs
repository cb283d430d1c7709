//! The mail transport: an SMTP server or, in development, a folder.
//!
//! Invariant: production never falls back to a folder by default; a transport that delivers to no
//! recipient must be configured explicitly.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::environment::Environment;
use super::links::LinkConfig;
use super::reader::{Reader, Variable};
use super::timing::parse_millis;
use super::url_text::unencoded;
use crate::email_address::EmailAddress;

const URL: Variable =
    Variable::secret("SMTP_URL", "smtp://user:password@host:port, smtps://… or file:DIRECTORY, required in production");
const CONNECTIONS: Variable = Variable::new("ROTA_SMTP_CONNECTIONS", "a whole number from 1");
const TIMEOUT: Variable = Variable::new("ROTA_MAIL_TIMEOUT_MS", "whole milliseconds from 100");

const FROM: Variable = Variable::new("ROTA_MAIL_FROM", "an email address");
const RELAY_PROBE: Variable = Variable::new("ROTA_RELAY_PROBE_MS", "whole milliseconds from 100");
const RELAY_PATIENCE: Variable = Variable::new("ROTA_RELAY_PATIENCE_MS", "whole milliseconds from 100");

const DEFAULT_DIRECTORY: &str = ".local/mail";
const DEFAULT_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_RELAY_PROBE: Duration = Duration::from_secs(30);
const DEFAULT_RELAY_PATIENCE: Duration = Duration::from_mins(1);
const MIN_TIMEOUT_MS: u64 = 100;

/// The mail transport; `Debug` omits user and password.
#[derive(Clone, PartialEq, Eq)]
pub enum MailTransport {
    /// An SMTP server, `smtp://` or `smtps://`, with its credentials.
    Smtp(Url),
    /// A folder that gets one `.eml` file per mail.
    Directory(PathBuf),
}

impl MailTransport {
    /// Accepts `smtp://host…`, `smtps://host…` and `file:DIRECTORY`, relative or absolute.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return (!path.is_empty()).then(|| Self::Directory(PathBuf::from(path)));
        }
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "smtp" | "smtps") && url.has_host()).then_some(Self::Smtp(url))
    }

    /// The whole URL, password included, for the mailer.
    pub fn expose(&self) -> String {
        match self {
            Self::Smtp(url) => url.to_string(),
            Self::Directory(path) => format!("file:{}", path.display()),
        }
    }
}

impl fmt::Debug for MailTransport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp(url) => write!(out, "Smtp({}://{})", url.scheme(), url.host_str().unwrap_or_default()),
            Self::Directory(path) => write!(out, "Directory({})", path.display()),
        }
    }
}

/// The mail section.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `SMTP_URL`; default `file:.local/mail`, required in production.
    pub transport: MailTransport,
    /// `ROTA_MAIL_FROM`, the sender of Rota's own mails; default `no-reply@` and the host of
    /// `ROTA_PUBLIC_URL`, or `no-reply@localhost` if that is not a domain.
    pub from: EmailAddress,
    /// `ROTA_SMTP_CONNECTIONS`, maximum open per process; default 4.
    pub connections: NonZeroUsize,
    /// `ROTA_MAIL_TIMEOUT_MS`, for one mail from connect to the final reply; default 15000.
    pub timeout: Duration,
    /// `ROTA_RELAY_PROBE_MS`, maximum time between two checks of an unavailable mail server;
    /// default 30000.
    pub relay_probe: Duration,
    /// `ROTA_RELAY_PATIENCE_MS`, time after which campaigns are paused until an unavailable mail
    /// server is back; default 60000.
    pub relay_patience: Duration,
}

impl MailConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment, links: &LinkConfig) -> Option<Self> {
        let from = reader.or(FROM, default_sender(links), |text| EmailAddress::parse(text).ok());
        let connections = reader.or(CONNECTIONS, DEFAULT_CONNECTIONS, |text| text.parse().ok());
        let timeout = reader.or(TIMEOUT, DEFAULT_TIMEOUT, |text| parse_millis(text, MIN_TIMEOUT_MS));
        let relay_probe = reader.or(RELAY_PROBE, DEFAULT_RELAY_PROBE, |text| parse_millis(text, MIN_TIMEOUT_MS));
        let relay_patience =
            reader.or(RELAY_PATIENCE, DEFAULT_RELAY_PATIENCE, |text| parse_millis(text, MIN_TIMEOUT_MS));
        let transport = if environment.is_production() {
            reader.required_or_reason(URL, understood)?
        } else {
            let folder = MailTransport::Directory(DEFAULT_DIRECTORY.into());
            reader.optional_or_reason(URL, understood).unwrap_or(folder)
        };
        Some(Self { transport, from, connections, timeout, relay_probe, relay_patience })
    }
}

fn default_sender(links: &LinkConfig) -> EmailAddress {
    let host = links.public_url.host_str().unwrap_or_default();
    let at = |domain: &str| EmailAddress::parse(&format!("no-reply@{domain}"));
    at(host).or_else(|_| at("localhost")).expect("localhost is a valid domain of an address")
}

fn understood(text: &str) -> Result<MailTransport, String> {
    MailTransport::parse(text).ok_or_else(|| unencoded(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_may_be_relative_or_absolute() {
        let folder = |text| MailTransport::parse(text).unwrap();
        assert_eq!(folder("file:.local/mail"), MailTransport::Directory(".local/mail".into()));
        assert_eq!(folder("file:/var/mail"), MailTransport::Directory("/var/mail".into()));
        assert_eq!(folder("file:///var/mail"), MailTransport::Directory("/var/mail".into()));
        assert_eq!(MailTransport::parse("file:"), None);
    }

    #[test]
    fn debug_shows_no_credentials() {
        let transport = MailTransport::parse("smtps://user:hunter2@mail.example:465").unwrap();
        assert_eq!(format!("{transport:?}"), "Smtp(smtps://mail.example)");
        assert_eq!(MailTransport::parse("smtp:mail.example"), None);
        assert_eq!(MailTransport::parse("http://mail.example"), None);
    }
}
