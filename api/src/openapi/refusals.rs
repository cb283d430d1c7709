//! The error responses of operations, in the OpenAPI document.
//!
//! Invariant: an operation lists every status it can return, and every response from 400 upwards
//! has the form of [`crate::problem`]. An operation declares its specific errors itself; errors
//! that follow from its shape (a credential, an id in its path, a body) are added here, so that no
//! handler can forget them.

use utoipa::openapi::{
    Components, Content, Header, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
    path::{Operation, Parameter, ParameterIn},
};

use crate::problem::PROBLEM_JSON;

/// An error response that operations share.
struct Refusal {
    name: &'static str,
    status: &'static str,
    description: &'static str,
    header: Option<(&'static str, &'static str)>,
}

const fn refusal(name: &'static str, status: &'static str, description: &'static str) -> Refusal {
    Refusal { name, status, description, header: None }
}

const RETRY_AFTER: Option<(&str, &str)> = Some(("Retry-After", "Seconds to wait before a retry"));

const MALFORMED: Refusal = refusal("Malformed", "400", "A header, the query string or the JSON is malformed");
const UNAUTHENTICATED: Refusal = Refusal {
    header: Some(("WWW-Authenticate", "The authentication scheme")),
    ..refusal("Unauthenticated", "401", "The credential is missing or invalid")
};
const FORBIDDEN: Refusal = refusal("Forbidden", "403", "The credential lacks the permission");
const NOT_FOUND: Refusal = refusal("NotFound", "404", "The resource does not exist or belongs to another tenant");
const METHOD_NOT_ALLOWED: Refusal = Refusal {
    header: Some(("Allow", "The methods of this path")),
    ..refusal("MethodNotAllowed", "405", "The path does not support this method")
};
const BODY_TIMEOUT: Refusal = refusal("BodyTimeout", "408", "The body was not received in time");
const TOO_LARGE: Refusal = refusal("PayloadTooLarge", "413", "The body exceeds the size limit");
const MEDIA_TYPE: Refusal = refusal("UnsupportedMediaType", "415", "The media type of the body is not supported");
const INVALID: Refusal = refusal("Invalid", "422", "The body does not match the schema; `errors` lists the positions");
const RATE_LIMITED: Refusal =
    Refusal { header: RETRY_AFTER, ..refusal("RateLimited", "429", "Too many requests, or too many open streams") };
const INTERNAL: Refusal = refusal("Internal", "500", "An internal error");
const UNAVAILABLE: Refusal = Refusal {
    header: RETRY_AFTER,
    ..refusal(
        "Unavailable",
        "503",
        "The service is unavailable or the request took too long; retry, with the same Idempotency-Key if there was one",
    )
};

const ALL: [&Refusal; 12] = [
    &MALFORMED,
    &UNAUTHENTICATED,
    &FORBIDDEN,
    &NOT_FOUND,
    &METHOD_NOT_ALLOWED,
    &BODY_TIMEOUT,
    &TOO_LARGE,
    &MEDIA_TYPE,
    &INVALID,
    &RATE_LIMITED,
    &INTERNAL,
    &UNAVAILABLE,
];

/// Adds the shared responses to the components.
pub(super) fn add_components(components: &mut Components) {
    for refusal in ALL {
        components.responses.insert(refusal.name.to_owned(), refusal.response().into());
    }
}

/// Adds the missing error responses to an operation.
pub(super) fn declare(operation: &mut Operation) {
    for refusal in of_shape(operation) {
        let reference = RefOr::Ref(Ref::from_response_name(refusal.name));
        operation.responses.responses.entry(refusal.status.to_owned()).or_insert(reference);
    }
    // The operation's own error responses have only a description so far.
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if matches!(status.as_bytes().first(), Some(b'4' | b'5')) && response.content.is_empty() {
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(problem()));
        }
    }
}

/// Errors that follow from the parameters, the body and the credential of an operation.
fn of_shape(operation: &Operation) -> Vec<&'static Refusal> {
    let mut refusals = vec![&METHOD_NOT_ALLOWED, &RATE_LIMITED, &INTERNAL, &UNAVAILABLE];
    let has = |place| has_parameter(operation, &place);
    let has_body = operation.request_body.is_some();
    if has(ParameterIn::Path) {
        refusals.push(&NOT_FOUND);
    }
    if has(ParameterIn::Query) || has(ParameterIn::Header) || has_body || is_without_query(operation) {
        refusals.push(&MALFORMED);
    }
    if has_body {
        refusals.extend([&BODY_TIMEOUT, &TOO_LARGE, &MEDIA_TYPE, &INVALID]);
    }
    if requires_credential(operation) {
        refusals.extend([&UNAUTHENTICATED, &FORBIDDEN]);
    }
    refusals
}

/// Whether [`super::WithoutQuery`] rejects a query string.
pub(super) fn is_without_query(operation: &Operation) -> bool {
    requires_credential(operation) && !has_parameter(operation, &ParameterIn::Query)
}

/// An operation requires the default credential unless it declares its own security.
fn requires_credential(operation: &Operation) -> bool {
    operation.security.is_none()
}

fn has_parameter(operation: &Operation, place: &ParameterIn) -> bool {
    let is_there = |it: &RefOr<Parameter>| matches!(it, RefOr::T(parameter) if parameter.parameter_in == *place);
    operation.parameters.iter().flatten().any(is_there)
}

fn problem() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}

impl Refusal {
    fn response(&self) -> Response {
        let response = ResponseBuilder::new().description(self.description).content(PROBLEM_JSON, problem());
        match self.header {
            Some((name, description)) => response.header(name, text_header(description)).build(),
            None => response.build(),
        }
    }
}

fn text_header(description: &str) -> Header {
    let schema = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
