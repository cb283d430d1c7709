//! The closed table of problem codes: for each its HTTP status, title and usual text.
//!
//! Invariant: a code, its type URI and its status are a promise to clients; codes are added, never changed. The table
//! is the `match` below, so that a code without an entry does not compile.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a problem.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, strum::IntoStaticStr, strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ProblemCode {
    /// The request is not proper HTTP for this route in a way no other code names.
    BadRequest,
    /// No credential, or one that is not valid.
    Unauthenticated,
    /// The credential does not permit this.
    Forbidden,
    /// There is no such thing, or it is another tenant's.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON of another form; `errors` says where.
    InvalidBody,
    /// The query string is not understood.
    InvalidQuery,
    /// The body is larger than the route permits.
    PayloadTooLarge,
    /// The body is of another media type than the route reads.
    UnsupportedMediaType,
    /// The idempotency key came before with another request.
    IdempotencyKeyReused,
    /// The first request with this idempotency key is still being answered.
    IdempotencyInFlight,
    /// The state of the thing does not permit this.
    Conflict,
    /// Another job holds the unique key; `job_id` says which.
    Duplicate,
    /// No kind of job has this name.
    UnknownKind,
    /// The args do not fit the kind's schema; `errors` says where.
    InvalidArgs,
    /// The jobs of one request depend on too many jobs.
    TooManyDependencies,
    /// The tenant's waiting jobs depend on too many jobs; `Retry-After` says when to come back.
    TooManyOpenDependencies,
    /// Too many requests; `Retry-After` says when to come back.
    RateLimited,
    /// The tenant has too much under way at once: bytes, uploads, transactions. Some of it must end first.
    TooManyInFlight,
    /// The body came too slowly.
    BodyTimeout,
    /// The answer took too long.
    Timeout,
    /// A part we need is away for the moment.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ProblemCode {
    /// The status of an answer with this code.
    pub fn status(self) -> StatusCode {
        self.entry().0
    }

    /// The kind in words.
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// The usual text, in want of a better one.
    pub fn detail(self) -> &'static str {
        self.entry().2
    }

    /// The code as it is written in answers.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The `type` member.
    pub fn type_uri(self) -> String {
        format!("/problems/{}", self.as_str())
    }

    /// The code for an answer of which only the status is known; `None` when it is no error.
    pub fn for_status(status: StatusCode) -> Option<Self> {
        Some(match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::BodyTimeout,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => Self::InvalidBody,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            other if other.is_client_error() => Self::BadRequest,
            other if other.is_server_error() => Self::Internal,
            _ => return None,
        })
    }

    #[rustfmt::skip]
    fn entry(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "Bad request", "the request is not understood"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "Not authenticated", "send a valid API key in X-API-Key"),
            Self::Forbidden => (S::FORBIDDEN, "Not permitted", "the credential does not permit this"),
            Self::NotFound => (S::NOT_FOUND, "Not found", "there is nothing here under this address"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "Method not allowed", "the Allow header says which methods are"),
            Self::InvalidJson => (S::BAD_REQUEST, "Not JSON", "the body is not valid JSON"),
            Self::InvalidBody => (S::UNPROCESSABLE_ENTITY, "The body does not fit", "the body is not of the form that is documented"),
            Self::InvalidQuery => (S::BAD_REQUEST, "Invalid query", "the query string is not understood"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "Too large", "the body is larger than permitted here"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", "send the media type that is documented"),
            Self::IdempotencyKeyReused => (S::UNPROCESSABLE_ENTITY, "Idempotency key reused", "the key came before with another request"),
            Self::IdempotencyInFlight => (S::CONFLICT, "First request still in flight", "the first request with this key is not answered yet"),
            Self::Conflict => (S::CONFLICT, "Conflict", "the present state does not permit this"),
            Self::Duplicate => (S::CONFLICT, "Duplicate", "another job holds the unique key"),
            Self::UnknownKind => (S::UNPROCESSABLE_ENTITY, "Unknown kind", "no kind of job has this name"),
            Self::InvalidArgs => (S::UNPROCESSABLE_ENTITY, "The args do not fit", "the args are not of the form that the kind needs"),
            Self::TooManyDependencies => (S::UNPROCESSABLE_ENTITY, "Too many dependencies", "the jobs of the request name too many jobs in after"),
            Self::TooManyOpenDependencies => (S::TOO_MANY_REQUESTS, "Too many open dependencies", "the waiting jobs name too many jobs in after, come back when some of them are final"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "Too many requests", "come back when Retry-After says"),
            Self::TooManyInFlight => (S::TOO_MANY_REQUESTS, "Too much at once", "the tenant has too much under way at once; come back when some of it is done"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "Body too slow", "the body did not come in time"),
            Self::Timeout => (S::SERVICE_UNAVAILABLE, "Took too long", "the answer took too long, the outcome is not known; retry with the same Idempotency-Key"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "Unavailable", "the service is unavailable for the moment, retry with the same Idempotency-Key"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "Internal error", "the fault is ours and has been recorded under the request id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use strum::IntoEnumIterator;

    #[test]
    fn codes_are_errors_and_told_apart() {
        let names: BTreeSet<_> = ProblemCode::iter().map(ProblemCode::as_str).collect();
        let titles: BTreeSet<_> = ProblemCode::iter().map(ProblemCode::title).collect();
        assert_eq!((names.len(), titles.len()), (24, 24));
        for code in ProblemCode::iter() {
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let general = ProblemCode::for_status(code.status()).unwrap();
            assert_eq!(general.status(), code.status());
        }
    }
}
