//! Gives every request an id, which appears in its log lines and its response.
//!
//! Invariant: an id from either side is 1 to 64 plain characters, so it needs no escaping in a log
//! line, a header or a database. A client's own id is kept if it has this form.

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use shared::clock::Clock;
use shared::ids;

/// The header that carries the id in requests and responses.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_CHARS: usize = 64;

/// The id of the current request, a request extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The client's id if it is acceptable, otherwise a new one.
    pub fn of(headers: &HeaderMap, clock: &Clock) -> Self {
        Self::accept(headers).unwrap_or_else(|| Self(ids::new_id(clock).to_string()))
    }

    /// Adds the id to a response.
    pub fn set(self, response: &mut Response) {
        // This cannot fail, since an id has plain characters only.
        if let Ok(value) = HeaderValue::try_from(self.0) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
    }

    fn accept(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(X_REQUEST_ID)?.to_str().ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        ((1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(plain)).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_request_id_is_accepted() {
        let accept = |text: &'static str| {
            RequestId::accept(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(text))]))
        };
        assert_eq!(accept("a-1_B.c").unwrap().as_str(), "a-1_B.c");
        for bad in ["", "a b", "a\"b", "a/b", "12345678901234567890123456789012345678901234567890123456789012345"] {
            assert_eq!(accept(bad), None, "{bad}");
        }
    }
}
