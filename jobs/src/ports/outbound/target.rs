//! The URLs that a request on a tenant's behalf may go to, as far as the text decides.
//!
//! Invariant: a [`Target`] has a permitted scheme, a host, no user, no fragment, a port that no
//! other protocol uses, and, if its host is an address, a permitted one. A host name is checked
//! when it is resolved.

use std::net::IpAddr;

use url::{Host, Url};

use super::{OutboundPolicy, address};

/// Browsers send no requests to these ports (<https://fetch.spec.whatwg.org/#port-blocking>): a
/// text protocol on such a port might interpret a body as commands.
const REFUSED_PORTS: [u16; 83] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531,
    532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060,
    5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
];
const MAX_URL_BYTES: usize = 2_048;

/// A URL that may be requested if its host resolves to permitted addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Url);

/// Why a URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an absolute URL with a host.
    #[error("not a URL of the form https://host/path")]
    NotAUrl,
    /// The URL is too long.
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// The scheme is not encrypted, or is not HTTP at all.
    #[error("the scheme must be https")]
    Scheme,
    /// Credentials in a URL appear in logs; signatures replace them.
    #[error("the URL must not contain a user name or password")]
    UserInfo,
    /// A fragment is never sent.
    #[error("the URL must not have a fragment")]
    Fragment,
    /// Another protocol uses the port.
    #[error("port {0} is not permitted")]
    Port(u16),
    /// The address is not on the public internet.
    #[error("the address is not permitted: it is private, local or reserved")]
    Address,
}

impl Target {
    /// Parses and checks a URL.
    pub fn parse(text: &str, policy: &OutboundPolicy) -> Result<Self, TargetError> {
        if text.len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        let url = Url::parse(text).map_err(|_| TargetError::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if policy.allow_http => {}
            _ => return Err(TargetError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(TargetError::Fragment);
        }
        let port = url.port_or_known_default().ok_or(TargetError::NotAUrl)?;
        if REFUSED_PORTS.contains(&port) {
            return Err(TargetError::Port(port));
        }
        let literal = match url.host().ok_or(TargetError::NotAUrl)? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        match literal {
            Some(literal) if !address::is_permitted(literal, &policy.allowed_networks) => Err(TargetError::Address),
            _ => Ok(Self(url)),
        }
    }

    /// The URL.
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The URL in the form used for comparison: equivalent spellings have the same key (a final dot
    /// of the host, an empty query, unnecessary escapes, RFC 3986 section 6.2.2).
    pub fn key(&self) -> String {
        let url = &self.0;
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let query = url.query().filter(|query| !query.is_empty()).map(|query| format!("?{}", unescaped(query)));
        format!("{}://{host}{port}{}{}", url.scheme(), unescaped(url.path()), query.unwrap_or_default())
    }
}

/// Replaces unnecessary escapes by their characters, and writes other escapes in upper case.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        match u8::from_str_radix(code, 16).map(char::from) {
            Ok(letter) if letter.is_ascii_alphanumeric() || "-._~".contains(letter) => plain.push(letter),
            _ => plain.extend(["%", &code.to_ascii_uppercase()]),
        }
        plain.push_str(rest);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_url_have_one_key() {
        let key = |text: &str| Target::parse(text, &OutboundPolicy::default()).unwrap().key();
        let expected = "https://example.com/hooks/~a%2Fb?c=d";
        for text in [
            "https://example.com/hooks/~a%2Fb?c=d",
            "HTTPS://EXAMPLE.com:443/hooks/%7ea%2fb?c=%64",
            "https://example.com./hooks/./x/../%7Ea%2Fb?c=d",
        ] {
            assert_eq!(key(text), expected, "{text}");
        }
        assert_eq!(key("https://example.com"), key("https://example.com/?"));
        for other in [
            "https://example.com/?a",
            "https://example.com:8443/",
            "https://example.com/A",
            "https://example.com/%",
            "https://example.com/%zz",
        ] {
            assert_ne!(key(other), key("https://example.com/"), "{other}");
        }
    }

    fn check(text: &str) -> Result<(), TargetError> {
        Target::parse(text, &OutboundPolicy::default()).map(drop)
    }

    #[test]
    fn an_ordinary_url_is_accepted() {
        for text in [
            "https://example.com",
            "https://example.com:8443/hooks?tenant=1",
            "https://1.1.1.1/",
            "https://[2606:4700:4700::1111]/",
            "https://bücher.example/",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let long = |bytes: usize| format!("https://example.com/{}", "a".repeat(bytes - 20));
        assert_eq!((check(&long(2_048)), check(&long(2_049))), (Ok(()), Err(TargetError::TooLong)));
    }

    #[test]
    fn an_invalid_url_gets_a_specific_error() {
        for (text, expected) in [
            ("", TargetError::NotAUrl),
            ("example.com", TargetError::NotAUrl),
            ("https://", TargetError::NotAUrl),
            ("http://example.com", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("gopher://example.com", TargetError::Scheme),
            ("https://user@example.com", TargetError::UserInfo),
            ("https://:password@example.com", TargetError::UserInfo),
            ("https://example.com/#top", TargetError::Fragment),
            ("https://example.com:0", TargetError::Port(0)),
            ("https://example.com:25", TargetError::Port(25)),
            ("https://example.com:6667", TargetError::Port(6667)),
        ] {
            assert_eq!(check(text), Err(expected), "{text}");
        }
    }

    /// All spellings of an address.
    #[test]
    fn a_forbidden_address_is_recognized_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0x7f000001",
            "127.0.0.1.",
            "１２７.０.０.１",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:1]",
            "[64:ff9b::127.0.0.1]",
            "169.254.169.254",
            "10.0.0.1",
            "[fd00:ec2::254]",
            "0",
        ] {
            assert_eq!(check(&format!("https://{host}/")), Err(TargetError::Address), "{host}");
        }
    }

    #[test]
    fn http_and_private_networks_must_be_allowed() {
        let policy = OutboundPolicy { allow_http: true, allowed_networks: vec!["127.0.0.0/8".parse().unwrap()] };
        assert!(Target::parse("http://127.0.0.1:8080/hook", &policy).is_ok());
        assert_eq!(Target::parse("http://10.0.0.1/", &policy), Err(TargetError::Address));
        assert_eq!(Target::parse("ftp://127.0.0.1/", &policy), Err(TargetError::Scheme));
    }
}
