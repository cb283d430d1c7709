//! A JSON body, parsed strictly.
//!
//! Invariant: the media type must be JSON (a browser's form submission is rejected), the size is
//! checked before parsing, and every mismatch is reported with its JSON pointer. Types reject
//! unknown fields with `deny_unknown_fields`.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use jobs::args;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::body::{body_problem, limited_body};
use super::media_type;
use super::objects::Objects;
use crate::in_flight::RequestAccount;
use crate::problem::{Problem, ProblemCode};

/// The byte order marks of UTF-8 and of UTF-16 in both byte orders.
const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe"];

/// A JSON body of a request or of a response.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        parse(&read(request).await?).map(Self)
    }
}

/// Reads the body of a JSON request. Each chunk is counted in the tenant's account before the next
/// is read.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    media_type::must_be_json(request.headers())?;
    let account = request.extensions().get::<RequestAccount>().cloned().unwrap_or_default();
    let mut chunks = limited_body(request)?.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| body_problem(&error))?;
        account.read(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::new(ProblemCode::InvalidJson).detail("the body is empty; expected a JSON object"));
    }
    if BYTE_ORDER_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        let detail = "the body begins with a byte order mark; expected UTF-8 without one";
        return Err(Problem::new(ProblemCode::InvalidJson).detail(detail));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(|error| {
        let pointer = args::pointer(error.path());
        problem(error.inner(), pointer, bytes)
    })?;
    deserializer.end().map_err(|error| problem(&error, String::new(), bytes))?;
    Ok(value)
}

fn problem(error: &serde_json::Error, pointer: String, bytes: &[u8]) -> Problem {
    let detail = if error.classify() == Category::Data {
        args::reason(error)
    } else if !is_too_deep(error) && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        // The reader of a variant expects the end of its object, and takes a comma for a syntax error.
        "expected an object with one member".to_owned()
    } else {
        return Problem::new(ProblemCode::InvalidJson).detail(error.to_string());
    };
    Problem::invalid(pointer, detail)
}

/// `serde_json` has no category for it. What is skipped, not read, may be as deep as it likes.
fn is_too_deep(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "a/b")]
        #[expect(dead_code, reason = "only its reading is tested")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its reading is tested")]
        count: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Until {
        #[expect(dead_code, reason = "only its reading is tested")]
        Seconds(u8),
    }

    #[test]
    fn a_variant_with_more_than_one_member_is_valid_json() {
        for text in [r#"{"seconds":1,"x":1}"#, r#"{"seconds":1,"seconds":1}"#] {
            let refused = parse::<Until>(text.as_bytes()).expect_err(text);
            assert_eq!(refused.code(), ProblemCode::InvalidBody, "{text}");
        }
        let refused = parse::<Until>(br#"{"seconds":1,}"#).expect_err("a trailing comma");
        assert_eq!(refused.code(), ProblemCode::InvalidJson);
    }

    fn refused(text: &str) -> serde_json::Value {
        let problem = parse::<Outer>(text.as_bytes()).unwrap_err();
        serde_json::to_value(problem.body(None, None)).unwrap()
    }

    #[test]
    fn an_invalid_member_is_reported_with_its_pointer() {
        let wrong = refused(r#"{"a/b":[{"count":1},{"count":"x"}]}"#);
        assert_eq!(wrong["code"], "invalid_body");
        assert_eq!(wrong["errors"][0]["pointer"], "/a~1b/1/count");
        assert_eq!(wrong["errors"][0]["detail"], r#"invalid type: string "x", expected a whole number"#);
        let unknown = refused(r#"{"a/b":[],"tenant_id":1}"#);
        assert_eq!(unknown["errors"][0]["pointer"], "/tenant_id");
        assert_eq!(refused("{}")["errors"][0]["pointer"], "");
        let arrays = refused(r#"{"a/b":[[1]]}"#);
        assert_eq!(arrays["errors"][0]["pointer"], "/a~1b/0");
        assert_eq!(arrays["errors"][0]["detail"], "invalid type: array, expected an object");
        assert_eq!(refused("[[]]")["code"], "invalid_body");
    }

    #[test]
    fn malformed_json_is_invalid_json() {
        for text in ["", "{", "\u{0}"] {
            assert_eq!(refused(text)["code"], "invalid_json", "{text}");
        }
        for text in [b"\xef\xbb\xbf{}".as_slice(), b"\xff\xfe{\0}\0"] {
            let problem = parse::<Outer>(text).unwrap_err();
            let told = serde_json::to_string(&problem.body(None, None)).unwrap();
            assert!(told.contains("byte order mark"), "{told}");
        }
        let trailing = r#"{"a/b":[]} x"#;
        assert_eq!(refused(trailing)["code"], "invalid_json");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().code(), ProblemCode::InvalidJson);
    }
}
