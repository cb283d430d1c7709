//! The form of every error response: problem details (RFC 9457) with a code from a closed table.
//!
//! Invariant: a client receives this text alone. The cause is kept apart for the log, and responses
//! from 500 upwards reveal nothing of it. `problem/code.rs` is the table, `problem/causes.rs` turns
//! errors into problems, and `middleware/problem_details.rs` adds the request id and path, logs,
//! and converts responses without this form.

mod causes;
mod code;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use shared::plain_json;
use utoipa::ToSchema;

pub use self::code::ProblemCode;

/// The media type of every error response.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Maximum characters of a text that may repeat a client's input.
const MAX_TEXT: usize = 500;
/// Maximum entries of `errors` in one response.
const MAX_ERRORS: usize = 100;

/// One error in a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The position in the body, as a JSON pointer (RFC 6901); empty for the whole body.
    #[schema(example = "/args/recipient")]
    pub pointer: String,
    /// The error at this position.
    #[schema(example = "missing field `recipient`")]
    pub detail: String,
}

/// An error response under construction.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: ProblemCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: BTreeMap<String, Member>,
    retry_after: Option<u64>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// A member that only some problems have.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Member {
    Value(Value),
    Written(Arc<RawValue>),
}

impl Problem {
    /// A problem with the default text of its code.
    pub fn new(code: ProblemCode) -> Self {
        let retry_after = (code.status() == http::StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        let detail = Cow::Borrowed(code.detail());
        Self(Box::new(Parts { code, detail, errors: Vec::new(), members: BTreeMap::new(), retry_after, cause: None }))
    }

    /// A problem with one place in a body.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { pointer: pointer.into(), detail: detail.into() };
        Self::new(ProblemCode::InvalidBody).errors(vec![error])
    }

    /// Replaces the default text. Ignored from status 500 upwards, whose texts are constant.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        if !self.0.code.status().is_server_error() {
            self.0.detail = match detail.into() {
                Cow::Owned(text) => Cow::Owned(cut(text)),
                fixed @ Cow::Borrowed(_) => fixed,
            };
        }
        self
    }

    /// Lists the errors in a body: the first [`MAX_ERRORS`] of them, with shortened texts.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        let bounded = |error: FieldError| FieldError { pointer: cut(error.pointer), detail: cut(error.detail) };
        self.0.errors = errors.into_iter().take(MAX_ERRORS).map(bounded).collect();
        self
    }

    /// Moves all errors to a part of the body: `pointer` becomes the start of their pointers.
    #[must_use]
    pub fn under(mut self, pointer: &str) -> Self {
        for error in &mut self.0.errors {
            error.pointer.insert_str(0, pointer);
        }
        self
    }

    /// Adds a member, such as the id that conflicts.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), Member::Value(value.into()));
        self
    }

    /// Like [`Self::member`], for a large value that is serialized already: it is not serialized
    /// again on a request thread.
    #[must_use]
    pub fn written_member(mut self, name: &str, text: Box<RawValue>) -> Self {
        self.0.members.insert(name.to_owned(), Member::Written(Arc::from(text)));
        self
    }

    /// Sets `Retry-After`, in whole seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    /// A member that was added with [`Self::member`].
    pub fn own_member(&self, name: &str) -> Option<&Value> {
        match self.0.members.get(name)? {
            Member::Value(value) => Some(value),
            Member::Written(_) => None,
        }
    }

    /// The code.
    pub fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// The text for this occurrence.
    pub fn detail_text(&self) -> &str {
        &self.0.detail
    }

    /// The errors in a body, by position.
    pub fn field_errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }

    /// The body; the id and path of the request are added once they are known.
    pub(crate) fn body<'a>(&'a self, request_id: Option<&'a str>, instance: Option<&'a str>) -> ProblemBody<'a> {
        let Parts { code, detail, errors, members, .. } = &*self.0;
        ProblemBody {
            problem_type: code.type_uri(),
            title: code.title(),
            status: code.status().as_u16(),
            code: *code,
            detail,
            request_id,
            instance,
            errors,
            members,
        }
    }
}

/// A client's input may be as long as a body, and a response that repeats it must not be.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl From<ProblemCode> for Problem {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for ProblemCode {
    fn into_response(self) -> Response {
        Problem::new(self).into_response()
    }
}

/// Problem details, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Identifies the type of the problem; stable.
    #[serde(rename = "type")]
    #[schema(example = "/problems/not_found", format = "uri-reference")]
    problem_type: String,
    /// The type of the problem in words; stable.
    title: &'static str,
    /// The HTTP status of the response.
    #[schema(example = 404)]
    status: u16,
    /// The type of the problem for programs; stable.
    code: ProblemCode,
    /// The error in this occurrence.
    detail: &'a str,
    /// The id to quote in support requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// The errors in the body, by position.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    #[serde(flatten)]
    #[schema(ignore)]
    members: &'a BTreeMap<String, Member>,
}

impl ProblemBody<'_> {
    pub(crate) fn to_body(&self) -> Body {
        Body::from(plain_json::text(self))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body(None, None).to_body());
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.code == ProblemCode::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"ApiKey realm="rota", Bearer realm="rota""#));
        }
        // For the middleware, which knows the request.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_standard_members_and_the_extensions() {
        let errors = vec![FieldError { pointer: "/kind".into(), detail: "missing".into() }];
        let problem = Problem::new(ProblemCode::InvalidBody).detail("one field is wrong").errors(errors);
        let problem = problem.member("limit", 5);
        let body = problem.body(Some("r1"), Some("/api/v1/jobs"));
        let expected = serde_json::json!({
            "type": "/problems/invalid_body", "title": "Invalid body", "status": 422,
            "code": "invalid_body", "detail": "one field is wrong", "request_id": "r1", "instance": "/api/v1/jobs",
            "errors": [{"pointer": "/kind", "detail": "missing"}], "limit": 5,
        });
        assert_eq!(serde_json::to_value(body).unwrap(), expected);
    }

    #[test]
    fn texts_and_field_errors_are_bounded() {
        let text = |length: usize| "ä".repeat(length);
        let detail = |length| Problem::new(ProblemCode::InvalidBody).detail(text(length)).detail_text().to_owned();
        assert_eq!(detail(MAX_TEXT), text(MAX_TEXT));
        assert_eq!(detail(MAX_TEXT + 1), text(MAX_TEXT) + "…");
        let error = FieldError { pointer: text(MAX_TEXT + 1), detail: text(2 * MAX_TEXT) };
        let problem = Problem::new(ProblemCode::InvalidBody).errors(vec![error; MAX_ERRORS + 1]);
        assert_eq!(problem.field_errors().len(), MAX_ERRORS);
        let told = &problem.field_errors()[0];
        assert_eq!((told.pointer.chars().count(), told.detail.chars().count()), (MAX_TEXT + 1, MAX_TEXT + 1));
    }

    #[test]
    fn server_error_texts_are_constant() {
        let problem = Problem::new(ProblemCode::Internal).detail("secret").caused_by("secret");
        assert!(!serde_json::to_string(&problem.body(None, None)).unwrap().contains("secret"));
        assert_eq!(problem.cause().unwrap().to_string(), "secret");
    }

    #[test]
    fn an_unavailable_response_has_a_retry_after_header() {
        let response = Problem::new(ProblemCode::Unavailable).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let response = Problem::new(ProblemCode::RateLimited).retry_after(30).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "30");
    }
}
