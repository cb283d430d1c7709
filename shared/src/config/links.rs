//! Settings of the links in mails: their base URL and the key that signs them.
//!
//! Invariant: api and worker must be given the same key, since the worker creates the links and the
//! api verifies them. The built-in key, which is public in this source, is refused in production,
//! and elsewhere accepted on loopback addresses only.

use url::Url;

use super::environment::Environment;
use super::http::api_address;
use super::reader::{Reader, Variable};
use super::secret::Secret;

const PUBLIC_URL: Variable = Variable::new("ROTA_PUBLIC_URL", "http://host or https://host, optionally with a path");
const KEY: Variable = Variable::secret(
    "ROTA_LINK_KEY",
    "at least 32 random characters, required in production and where HOST is not a loopback address",
);

const MIN_KEY_CHARS: usize = 32;
const DEVELOPMENT_KEY: &str = "for-development-only-not-a-secret-link-key";

/// The key of the HMAC in links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkKey(Secret);

impl LinkKey {
    /// Accepts 32 characters and more.
    pub fn parse(text: &str) -> Option<Self> {
        (text.chars().count() >= MIN_KEY_CHARS).then(|| Self(Secret::new(text)))
    }

    /// The bytes of the key.
    pub fn expose(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// The links section.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `ROTA_PUBLIC_URL`; default `http://HOST:PORT`. The URL under which recipients and clients
    /// reach the API.
    pub public_url: Url,
    /// `ROTA_LINK_KEY`, at least 32 characters; defaults to a well-known key, which is refused in
    /// production and unless `HOST` is a loopback address.
    pub key: LinkKey,
}

impl LinkConfig {
    /// The link to a path of the API.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.public_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }

    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let given = reader.optional(PUBLIC_URL, parse_public_url);
        let public_url = given.unwrap_or_else(|| local_url(reader));
        let key = reader.or(KEY, LinkKey(Secret::new(DEVELOPMENT_KEY)), LinkKey::parse);
        if environment.is_production() && key.expose() == DEVELOPMENT_KEY.as_bytes() {
            reader.report(KEY, "the development key is refused in production");
        } else if !api_address(reader).is_loopback() && key.expose() == DEVELOPMENT_KEY.as_bytes() {
            reader.report(KEY, "the development key is refused where HOST is not a loopback address");
        }
        Self { public_url, key }
    }
}

fn parse_public_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
}

/// The URL of the API as seen from this machine. An unspecified address ("all interfaces") cannot
/// stand in a link.
fn local_url(reader: &mut Reader<'_>) -> Url {
    let mut address = api_address(reader).first();
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Url::parse(&format!("http://{address}")).expect("a socket address makes a valid authority")
}
