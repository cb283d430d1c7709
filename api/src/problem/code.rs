//! The closed table of problem codes: the HTTP status, title and default text of each.
//!
//! Invariant: a code, its type URI and its status are a promise to clients; codes are added, never
//! changed. The table is the `match` below, so a code without an entry does not compile.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The type of a problem.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, strum::IntoStaticStr, strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ProblemCode {
    /// The request is malformed in a way that no other code names.
    BadRequest,
    /// The credential is missing or invalid.
    Unauthenticated,
    /// The credential does not permit the operation.
    Forbidden,
    /// An operator has suspended the company of the credential.
    CompanySuspended,
    /// The resource does not exist or belongs to another tenant.
    NotFound,
    /// The path exists, but does not support the method.
    MethodNotAllowed,
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON that does not match the schema; `errors` lists the positions.
    InvalidBody,
    /// The query string is invalid.
    InvalidQuery,
    /// The body exceeds the size limit of the route.
    PayloadTooLarge,
    /// The route does not support the media type of the body.
    UnsupportedMediaType,
    /// The idempotency key was used before with a different request.
    IdempotencyKeyReused,
    /// The first request with this idempotency key is still in progress.
    IdempotencyInFlight,
    /// The state of the resource does not permit the operation.
    Conflict,
    /// Another job holds the unique key; `job_id` is its id.
    Duplicate,
    /// No job kind has this name.
    UnknownKind,
    /// The args do not match the kind's schema; `errors` lists the positions.
    InvalidArgs,
    /// The jobs of one request have too many dependencies.
    TooManyDependencies,
    /// The tenant's waiting jobs have too many dependencies; `Retry-After` says when to retry.
    TooManyOpenDependencies,
    /// Too many requests; `Retry-After` says when to retry.
    RateLimited,
    /// The quota of the tenant's tier is used up; `Retry-After` says when it is renewed.
    QuotaExceeded,
    /// The tenant has too much in flight: bytes, uploads, transactions. Some of it must end first.
    TooManyInFlight,
    /// The request body was not received in time.
    BodyTimeout,
    /// The request took too long.
    Timeout,
    /// A required service is unavailable.
    Unavailable,
    /// An internal error.
    Internal,
}

impl ProblemCode {
    /// The status of a response with this code.
    pub fn status(self) -> StatusCode {
        self.entry().0
    }

    /// The type of the problem in words.
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// The default text, for problems without a more specific one.
    pub fn detail(self) -> &'static str {
        self.entry().2
    }

    /// The code as written in responses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The `type` member.
    pub fn type_uri(self) -> String {
        format!("/problems/{}", self.as_str())
    }

    /// The code for a response of which only the status is known; `None` if it is not an error.
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
            Self::BadRequest => (S::BAD_REQUEST, "Bad request", "the request is malformed"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "Not authenticated", "send a valid API key in X-API-Key, or an access token in Authorization"),
            Self::Forbidden => (S::FORBIDDEN, "Not permitted", "the credential does not permit this operation"),
            Self::CompanySuspended => (S::FORBIDDEN, "Company suspended", "the company is suspended; ask the operator of this service why"),
            Self::NotFound => (S::NOT_FOUND, "Not found", "the resource does not exist"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "Method not allowed", "the Allow header lists the permitted methods"),
            Self::InvalidJson => (S::BAD_REQUEST, "Invalid JSON", "the body is not valid JSON"),
            Self::InvalidBody => (S::UNPROCESSABLE_ENTITY, "Invalid body", "the body does not match the documented schema"),
            Self::InvalidQuery => (S::BAD_REQUEST, "Invalid query", "the query string is invalid"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "Payload too large", "the body exceeds the size limit of this endpoint"),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", "send the documented media type"),
            Self::IdempotencyKeyReused => (S::UNPROCESSABLE_ENTITY, "Idempotency key reused", "the key was used before with a different request"),
            Self::IdempotencyInFlight => (S::CONFLICT, "First request still in progress", "the first request with this key is still in progress"),
            Self::Conflict => (S::CONFLICT, "Conflict", "the current state does not permit this operation"),
            Self::Duplicate => (S::CONFLICT, "Duplicate", "another job holds the unique key"),
            Self::UnknownKind => (S::UNPROCESSABLE_ENTITY, "Unknown kind", "no job kind has this name"),
            Self::InvalidArgs => (S::UNPROCESSABLE_ENTITY, "Invalid arguments", "the args do not match the kind's schema"),
            Self::TooManyDependencies => (S::UNPROCESSABLE_ENTITY, "Too many dependencies", "the jobs of the request have too many dependencies in `after`"),
            Self::TooManyOpenDependencies => (S::TOO_MANY_REQUESTS, "Too many open dependencies", "the tenant's waiting jobs have too many dependencies in `after`; retry when some of them are final"),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "Too many requests", "retry after the time given in Retry-After"),
            Self::QuotaExceeded => (S::TOO_MANY_REQUESTS, "Quota exceeded", "the quota of the tenant's tier is used up; retry after the time given in Retry-After"),
            Self::TooManyInFlight => (S::TOO_MANY_REQUESTS, "Too much in flight", "the tenant has too much in flight; retry when some of it is done"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "Request body timeout", "the request body was not received in time"),
            Self::Timeout => (S::SERVICE_UNAVAILABLE, "Request timeout", "the request took too long and its outcome is unknown; retry, with the same Idempotency-Key if there was one"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "Unavailable", "the service is temporarily unavailable; retry, with the same Idempotency-Key if there was one"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "Internal error", "an internal error occurred and was logged with the request id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use strum::IntoEnumIterator;

    #[test]
    fn codes_are_distinct_and_have_error_statuses() {
        let names: BTreeSet<_> = ProblemCode::iter().map(ProblemCode::as_str).collect();
        let titles: BTreeSet<_> = ProblemCode::iter().map(ProblemCode::title).collect();
        assert_eq!((names.len(), titles.len()), (26, 26));
        for code in ProblemCode::iter() {
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            let general = ProblemCode::for_status(code.status()).unwrap();
            assert_eq!(general.status(), code.status());
        }
    }
}
