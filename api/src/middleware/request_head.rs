//! Rejects ambiguous request heads, which two parsers could read differently: a repeated field that
//! must be unique, a missing or invalid host, a body in a coding that is not decoded.
//!
//! Invariant: inside this layer a credential, a key, a media type and a host have one value or
//! none, so a proxy in front reads the same values as the API. Framing (`Content-Length`,
//! `Transfer-Encoding`) is handled by hyper, which rejects differing lengths and closes the
//! connection after a request that has both.

use http::{
    HeaderMap, HeaderName, Uri, Version,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING},
    uri::Authority,
};

use crate::problem::{Problem, ProblemCode};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Fields that must not be repeated, besides the credentials and the host.
const ONCE: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
];

/// The problem in a request head, if there is one.
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    check_host(version, uri, headers)?;
    check_credentials(headers)?;
    if let Some(name) = ONCE.iter().find(|name| headers.get_all(*name).iter().count() > 1) {
        return Err(bad(format!("the header {name} is sent more than once")));
    }
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("send Content-Length or Transfer-Encoding, not both".to_owned()));
    }
    let is_coded = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(is_coded) {
        return Err(Problem::new(ProblemCode::UnsupportedMediaType).detail("send the body without a Content-Encoding"));
    }
    Ok(())
}

fn check_credentials(headers: &HeaderMap) -> Result<(), Problem> {
    let count = |name: HeaderName| headers.get_all(name).iter().count();
    let detail = match (count(API_KEY), count(AUTHORIZATION)) {
        (2.., _) => "X-API-Key is sent more than once; send one API key",
        (_, 2..) => "Authorization is sent more than once; send one credential",
        (1, 1) => "X-API-Key and Authorization are both sent; send one credential",
        _ => return Ok(()),
    };
    Err(Problem::new(ProblemCode::Unauthenticated).detail(detail))
}

/// In HTTP/2 the authority is a field of its own; a `Host` beside it must match. HTTP/1.0 requires
/// no host.
fn check_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(bad("the header Host is sent more than once".to_owned()));
    }
    let Some(host) = host else {
        let needed = version == Version::HTTP_11 && uri.authority().is_none();
        return if needed { Err(bad("the header Host is missing".to_owned())) } else { Ok(()) };
    };
    let host = host.to_str().ok().and_then(authority).ok_or_else(|| bad("the header Host is invalid".to_owned()))?;
    match uri.authority() {
        Some(named) if !named.as_str().eq_ignore_ascii_case(host.as_str()) => {
            Err(bad("the header Host names another host than the request's target".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Parses a host with or without a port; any other text is rejected.
fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let rest = text.strip_prefix(host)?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_whole = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    (!host.is_empty() && is_whole).then_some(authority)
}

fn bad(detail: String) -> Problem {
    Problem::new(ProblemCode::BadRequest).detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(version: Version, uri: &str, fields: &[(&str, &str)]) -> Option<ProblemCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        check(version, &uri.parse().expect("a target"), &headers).err().map(|problem| problem.code())
    }

    #[test]
    fn exactly_one_valid_host_is_required() {
        let of = |host: &str| code_of(Version::HTTP_11, "/", &[("host", host)]);
        for good in ["example.com", "example.com:8080", "127.0.0.1:1", "[::1]:8080", "[2001:db8::1]", "a_b"] {
            assert_eq!(of(good), None, "{good}");
        }
        for odd in ["", " ", "a b", "a/b", "a@b", "a:b", "a:", "a:65536", "[::1", "a?b", "a#b", "a\\b", ":80", "a,b c"]
        {
            assert_eq!(of(odd), Some(ProblemCode::BadRequest), "{odd:?}");
        }
        assert_eq!(code_of(Version::HTTP_11, "/", &[]), Some(ProblemCode::BadRequest));
        assert_eq!(code_of(Version::HTTP_10, "/", &[]), None);
        assert_eq!(code_of(Version::HTTP_2, "http://a/", &[]), None);
        assert_eq!(code_of(Version::HTTP_11, "http://a/", &[("host", "A")]), None);
        assert_eq!(code_of(Version::HTTP_11, "http://a/", &[("host", "b")]), Some(ProblemCode::BadRequest));
        let twice = [("host", "a"), ("host", "a")];
        assert_eq!(code_of(Version::HTTP_11, "/", &twice), Some(ProblemCode::BadRequest));
    }

    #[test]
    fn a_repeated_header_field_is_refused() {
        let of = |fields: &[(&str, &str)]| code_of(Version::HTTP_11, "/", &[&[("host", "a")], fields].concat());
        for name in ["content-type", "content-length", "transfer-encoding", "idempotency-key", "last-event-id"] {
            assert_eq!(of(&[(name, "1")]), None, "{name}");
            assert_eq!(of(&[(name, "1"), (name, "1")]), Some(ProblemCode::BadRequest), "{name}");
        }
        let both = [("content-length", "1"), ("transfer-encoding", "chunked")];
        assert_eq!(of(&both), Some(ProblemCode::BadRequest));
        for credentials in [
            [("x-api-key", "1"), ("x-api-key", "1")],
            [("authorization", "1"), ("authorization", "1")],
            [("x-api-key", "1"), ("authorization", "1")],
        ] {
            assert_eq!(of(&credentials), Some(ProblemCode::Unauthenticated), "{credentials:?}");
        }
        assert_eq!(of(&[("x-api-key", "1")]), None);
        assert_eq!(of(&[("accept", "a"), ("accept", "b")]), None);
    }

    #[test]
    fn an_encoded_body_is_refused() {
        let of = |coding| code_of(Version::HTTP_11, "/", &[("host", "a"), ("content-encoding", coding)]);
        assert_eq!(of("Identity"), None);
        for coding in ["gzip", "br", "deflate", "zstd", "gzip, identity", "nonsense", ""] {
            assert_eq!(of(coding), Some(ProblemCode::UnsupportedMediaType), "{coding:?}");
        }
    }
}
