//! Parses `SMTP_URL`: a folder, or a relay and how to trust it.
//!
//! Invariant: mail goes in clear to a relay on another machine only if the URL explicitly says
//! `tls=none`. Errors and `Debug` output never contain the password.

use std::{fmt, net::IpAddr, path::PathBuf};

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::error::MailConfigError;

/// The destination of mails.
#[derive(Debug)]
pub(super) enum Target {
    Folder(PathBuf),
    Relay(Relay),
}

/// When TLS starts on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Never: loopback, or `tls=none`.
    None,
    /// After STARTTLS; a relay that does not offer it gets no mail.
    StartTls,
    /// From the first octet (`smtps://`).
    Implicit,
}

/// The relay described by the URL.
#[derive(Debug)]
pub(super) struct Relay {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    pub credentials: Option<Credentials>,
    /// A PEM file with the only trusted root, for relays with a private certificate authority.
    pub ca: Option<PathBuf>,
}

/// Credentials for the relay.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Target {
    pub fn parse(smtp_url: &str) -> Result<Self, MailConfigError> {
        match smtp_url.strip_prefix("file:") {
            Some(folder) => parse_folder(folder).map(Self::Folder),
            None => parse_relay(smtp_url).map(Self::Relay),
        }
    }
}

fn parse_folder(folder: &str) -> Result<PathBuf, MailConfigError> {
    let path = folder.strip_prefix("//").unwrap_or(folder);
    let names_a_host = path.len() != folder.len() && !path.starts_with('/');
    if path.is_empty() || names_a_host {
        return Err(malformed("the directory is missing, as in file:mail or file:///var/spool/rota"));
    }
    Ok(PathBuf::from(path))
}

fn parse_relay(smtp_url: &str) -> Result<Relay, MailConfigError> {
    let url = Url::parse(smtp_url).map_err(|error| malformed(&error.to_string()))?;
    if !matches!(url.scheme(), "smtp" | "smtps") {
        return Err(malformed("the scheme is not one of these"));
    }
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(malformed("nothing but ?settings may follow the host (is a / or # in the password not encoded?)"));
    }
    let host = parse_host(&url)?;
    let settings = Settings::parse(&url)?;
    let encryption = settings.encryption(url.scheme() == "smtps", is_loopback(&host))?;
    if encryption == Encryption::None && settings.ca.is_some() {
        return Err(malformed("a ca is given but TLS is not used"));
    }
    Ok(Relay {
        port: url.port().unwrap_or(default_port(encryption)),
        credentials: credentials(&url)?,
        host,
        encryption,
        ca: settings.ca,
    })
}

fn default_port(encryption: Encryption) -> u16 {
    match encryption {
        Encryption::None => 25,
        Encryption::StartTls => 587,
        Encryption::Implicit => 465,
    }
}

/// The host in the form used by DNS and certificates: A-labels, no brackets around IPv6.
fn parse_host(url: &Url) -> Result<String, MailConfigError> {
    let raw = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| malformed("the host is missing"))?;
    let decoded = decode(raw)?;
    match Host::parse(&decoded).map_err(|error| malformed(&error.to_string()))? {
        Host::Domain(domain) => Ok(domain),
        Host::Ipv4(ip) => Ok(ip.to_string()),
        Host::Ipv6(ip) => Ok(ip.to_string()),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn credentials(url: &Url) -> Result<Option<Credentials>, MailConfigError> {
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        ("", Some(_)) | (_, None) => Err(malformed("a user needs a password and a password a user")),
        (user, Some(password)) => Ok(Some(Credentials { user: decode(user)?, password: decode(password)? })),
    }
}

fn decode(text: &str) -> Result<String, MailConfigError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| malformed("a % escape is not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn malformed(why: &str) -> MailConfigError {
    MailConfigError::Malformed(why.to_owned())
}

/// The part after `?`.
#[derive(Default)]
struct Settings {
    tls: Option<String>,
    ca: Option<PathBuf>,
}

impl Settings {
    fn parse(url: &Url) -> Result<Self, MailConfigError> {
        let mut settings = Self::default();
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "tls" => settings.tls = Some(value.into_owned()),
                "ca" => settings.ca = Some(PathBuf::from(value.into_owned())),
                _ => return Err(MailConfigError::UnknownSetting(name.into_owned())),
            }
        }
        Ok(settings)
    }

    fn encryption(&self, implicit: bool, loopback: bool) -> Result<Encryption, MailConfigError> {
        match (self.tls.as_deref(), implicit) {
            (None | Some("required"), true) => Ok(Encryption::Implicit),
            (Some("none"), true) => Err(malformed("smtps:// and tls=none contradict each other")),
            (None, false) if loopback => Ok(Encryption::None),
            (None | Some("required"), false) => Ok(Encryption::StartTls),
            (Some("none"), false) => Ok(Encryption::None),
            (Some(other), _) => Err(MailConfigError::Tls(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(url: &str) -> Relay {
        match Target::parse(url) {
            Ok(Target::Relay(relay)) => relay,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn tls_is_required_unless_loopback_or_configured() {
        for (url, host, port, encryption) in [
            ("smtp://localhost", "localhost", 25, Encryption::None),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, Encryption::None),
            ("smtp://[::1]:2525", "::1", 2525, Encryption::None),
            ("smtp://localhost?tls=required", "localhost", 587, Encryption::StartTls),
            ("smtp://mail.example.com", "mail.example.com", 587, Encryption::StartTls),
            ("smtp://127.evil.example", "127.evil.example", 587, Encryption::StartTls),
            ("smtp://10.0.0.1:25?tls=none", "10.0.0.1", 25, Encryption::None),
            ("smtp://mail.example.com?tls=none", "mail.example.com", 25, Encryption::None),
            ("smtps://mail.example.com", "mail.example.com", 465, Encryption::Implicit),
            ("smtps://localhost:4465?tls=required", "localhost", 4465, Encryption::Implicit),
        ] {
            let relay = relay(url);
            assert_eq!((relay.host.as_str(), relay.port, relay.encryption), (host, port, encryption), "{url}");
        }
    }

    #[test]
    fn folder_urls_are_parsed() {
        for (url, path) in
            [("file:mail", "mail"), ("file:./a b", "./a b"), ("file:///var/x", "/var/x"), ("file:/x", "/x")]
        {
            assert!(matches!(Target::parse(url), Ok(Target::Folder(folder)) if folder == *path), "{url}");
        }
        assert!(Target::parse("file:").is_err());
        assert!(Target::parse("file://host/x").is_err());
    }

    #[test]
    fn errors_do_not_contain_the_password() {
        for (url, needle) in [
            ("smtp://u:hunter2@mail.example.com?tls=opportunistic", "never downgraded"),
            ("smtp://u:hunter2@mail.example.com?tsl=none", "unknown setting `tsl`"),
            ("smtps://u:hunter2@mail.example.com?tls=none", "contradict"),
            ("smtp://u:hunter2@localhost?ca=/x.pem", "TLS is not used"),
            ("smtp://user@mail.example.com", "needs a password"),
            ("smtp://u:hun/ter2@mail.example.com", "SMTP_URL must be"),
            ("smtp://u:hunter2@", "SMTP_URL must be"),
            ("https://u:hunter2@mail.example.com", "scheme"),
            ("mail", "SMTP_URL must be"),
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(error.to_string().contains(needle), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let relay = relay("smtp://u:hunter2@localhost");
        assert!(!format!("{relay:?}").contains("hunter2"));
    }

    #[test]
    fn credentials_are_decoded() {
        let expected = Credentials { user: "me@x.org".to_owned(), password: "a/b#ü".to_owned() };
        assert_eq!(relay("smtps://me%40x.org:a%2Fb%23%C3%BC@mail.example.com").credentials, Some(expected));
    }
}
