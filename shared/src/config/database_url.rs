//! The URL of a database: which forms are accepted, and why others are refused.
//!
//! Invariant: an accepted URL is in the form that the driver understands, and no text from here
//! contains a password.

use std::fmt;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;
use url::{Host, Url};

use super::url_text::{authority, unencoded};

/// Parameters that the driver supports.
const KNOWN: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];
/// libpq parameters without effect in Rota; they are dropped.
const WITHOUT_EFFECT: [&str; 11] = [
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// The URL of a database with role and password; `Debug` omits the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Url);

impl DatabaseUrl {
    /// Accepts `postgres://` and `postgresql://` in the forms of libpq, except for several hosts.
    /// The error says how to correct the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err("it must begin with postgres:// or postgresql://".into());
        }
        if let Some(advice) = unencoded(text) {
            return Err(advice);
        }
        let (before, after) = authority(text);
        let hosts = before.rsplit_once('@').map_or(before, |(_, hosts)| hosts);
        let credentials = &before[..before.len() - hosts.len()];
        if hosts.contains(',') {
            return Err(SEVERAL_HOSTS.into());
        }
        // The host may be a parameter, or missing for localhost; the parser does not accept an
        // authority of credentials alone.
        let host = if hosts.is_empty() || hosts.starts_with(':') { "localhost" } else { "" };
        let normal = format!("postgres://{credentials}{host}{hosts}{after}");
        let url = Url::parse(&normal)
            .map_err(|error| format!("{error}; reserved characters must be written in percent-encoding"))?;
        let url = with_parameters(url)?;
        // Remaining errors: an invalid port or mode, a name that is not UTF-8. The driver's message
        // contains no value that could be secret.
        url.as_str().parse::<PgConnectOptions>().map_err(|error| {
            std::error::Error::source(&error)
                .map_or_else(|| "a parameter has an invalid value".to_owned(), ToString::to_string)
        })?;
        Ok(Self(url))
    }

    /// The whole URL, password included, for the database driver.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The role, from the authority or the parameters.
    pub fn user(&self) -> Option<String> {
        self.parameter("user").or_else(|| Some(decoded(self.0.username())).filter(|user| !user.is_empty()))
    }

    /// The password, from the authority or the parameters.
    pub fn password(&self) -> Option<String> {
        self.parameter("password").or_else(|| self.0.password().map(decoded))
    }

    fn parameter(&self, wanted: &str) -> Option<String> {
        self.0.query_pairs().filter(|(name, _)| name == wanted).last().map(|(_, value)| value.into_owned())
    }
}

const SEVERAL_HOSTS: &str = "several hosts are not supported; name one, or a proxy that follows the primary server";

fn with_parameters(mut url: Url) -> Result<Url, String> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in url.query_pairs() {
        if matches!(&*name, "host" | "hostaddr") && value.contains(',') {
            return Err(SEVERAL_HOSTS.into());
        }
        if KNOWN.contains(&&*name) || (name.starts_with("options[") && name.ends_with(']')) {
            kept.push((name.into_owned(), value.into_owned()));
        } else if !WITHOUT_EFFECT.contains(&&*name) {
            return Err("a parameter after the `?` is not known".into());
        }
    }
    // The driver would resolve the brackets of an IPv6 address as part of a name.
    if let Some(Host::Ipv6(address)) = url.host().map(|host| host.to_owned())
        && !kept.iter().any(|(name, _)| name == "host" || name == "hostaddr")
    {
        kept.push(("hostaddr".into(), address.to_string()));
    } else if let Some(Host::Domain(text)) = url.host()
        && let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))
    {
        kept.push(("hostaddr".into(), address.to_owned()));
    }
    url.set_fragment(None);
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    Ok(url)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // A URL with a password has an authority, so this cannot fail; if it did, printing
            // nothing would be right.
            shown.set_password(Some("***")).map_err(|()| fmt::Error)?;
        }
        // A password may also be a parameter.
        shown.set_query(None);
        write!(out, "DatabaseUrl({shown})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> PgConnectOptions {
        let url = DatabaseUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        url.expose().parse().unwrap()
    }

    #[test]
    fn debug_shows_neither_form_of_password() {
        let url = DatabaseUrl::parse("postgres://rota_app:hunter2@db:5432/rota?password=hunter3").unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgres://rota_app:***@db:5432/rota)");
        assert_eq!(url.password().unwrap(), "hunter3");
    }

    #[test]
    fn every_libpq_url_with_one_host_is_accepted() {
        let socket = options("postgres://u:p@/db?host=/run/postgresql");
        assert_eq!(
            (socket.get_socket().unwrap().to_str(), socket.get_database()),
            (Some("/run/postgresql"), Some("db"))
        );
        let socket = options("postgres:///db?host=%2Frun%2Fpostgresql&user=u&password=p%2Fq&port=5433");
        assert_eq!((socket.get_socket().unwrap().to_str(), socket.get_username()), (Some("/run/postgresql"), "u"));
        assert_eq!(socket.get_port(), 5_433);
        let socket = options("postgres://u:p@%2Frun%2Fpostgresql/db");
        assert_eq!(socket.get_socket().unwrap().to_str(), Some("/run/postgresql"));
        for text in ["postgres://u:p@[::1]:5433/db", "postgres://u:p@/db?host=::1&port=5433"] {
            let six = options(text);
            assert_eq!((six.get_host(), six.get_port()), ("::1", 5_433), "{text}");
        }
        assert_eq!(
            options("postgresql://u@db.example/db?sslmode=verify-full&connect_timeout=5").get_host(),
            "db.example"
        );
        assert_eq!(options("postgres://u:p@:5433/db").get_port(), 5_433);
        assert_eq!(options("postgres://u:p@/db").get_host(), "localhost");
    }

    #[test]
    fn user_and_password_are_read_from_authority_or_query() {
        for text in ["postgres://u%40x:p%2Fq%3F%23@h/db", "postgres:///db?host=h&user=u%40x&password=p%2Fq%3F%23"] {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!((url.user().as_deref(), url.password().as_deref()), (Some("u@x"), Some("p/q?#")), "{text}");
        }
        let url = DatabaseUrl::parse("postgres://h/db").unwrap();
        assert_eq!((url.user(), url.password()), (None, None));
    }

    #[test]
    fn an_error_gives_the_reason_and_hides_the_password() {
        for (text, reason) in [
            ("mysql://u:hunter2@h/db", "postgres://"),
            ("localhost:5432", "postgres://"),
            ("postgres://u:hunter2/x@h/db", "%2F"),
            ("postgres://u:hunter2?x@h/db", "%3F"),
            ("postgres://u:hunter2#x@h/db", "%23"),
            ("postgres://u:hunter2@a,b/db", "several hosts"),
            ("postgres://u:hunter2@a:1,b:2/db", "several hosts"),
            ("postgres://u:hunter2@/db?host=a,b", "several hosts"),
            ("postgres://u:hunter2@h:99999/db", "port"),
            ("postgres://u:hunter2@h/db?sslmode=hunter", "ssl_mode"),
            ("postgres://u@h/db?pasword=hunter2", "parameter"),
        ] {
            let told = DatabaseUrl::parse(text).unwrap_err();
            assert!(told.contains(reason) && !told.contains("hunter2"), "{text}: {told}");
        }
    }
}
