//! Checks the `Content-Type` of a body.
//!
//! Invariant: a body is read as its declared media type or not at all. Bodies are not transcoded,
//! so charsets other than UTF-8 are rejected.

use http::{HeaderMap, header::CONTENT_TYPE};
use mime::Mime;

use crate::problem::{Problem, ProblemCode};

/// Rejects everything but CSV with a header (RFC 4180; its charset US-ASCII is a subset of UTF-8).
pub(crate) fn must_be_csv(headers: &HeaderMap) -> Result<(), Problem> {
    must_be(headers, "text/csv in UTF-8, with a header in the first line", |media_type| {
        let is_csv = media_type.type_() == mime::TEXT && media_type.subtype() == mime::CSV;
        let is_ascii = media_type.get_param(mime::CHARSET).is_some_and(|charset| charset == "us-ascii");
        is_csv && (is_ascii || is_utf8(media_type)) && media_type.get_param("header").is_none_or(|is| is != "absent")
    })
}

/// Rejects everything but JSON.
pub(super) fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    must_be(headers, "application/json in UTF-8", |media_type| {
        let (subtype, suffix) = (media_type.subtype(), media_type.suffix());
        let is_json = media_type.type_() == mime::APPLICATION && (subtype == mime::JSON || suffix == Some(mime::JSON));
        is_json && is_utf8(media_type)
    })
}

fn must_be(headers: &HeaderMap, expected: &str, is: impl FnOnce(&Mime) -> bool) -> Result<(), Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.parse().ok());
    if media_type.is_some_and(|media_type| is(&media_type)) {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::UnsupportedMediaType).detail(format!("send {expected}")))
}

fn is_utf8(media_type: &Mime) -> bool {
    media_type.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(must_be: fn(&HeaderMap) -> Result<(), Problem>, text: &str) -> bool {
        must_be(&HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())])).is_ok()
    }

    #[test]
    fn only_json_media_types_pass() {
        let is = |text: &str| passes(must_be_json, text);
        assert!(is("application/json") && is("Application/JSON; charset=utf-8") && is("application/x+json"));
        assert!(!is("application/json; charset=utf-16") && !is("application/json; charset") && !is("json"));
        assert!(!is("text/json") && !is("application/x-www-form-urlencoded") && !is("application/jsonp"));
        assert!(must_be_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn only_csv_with_a_header_passes() {
        let is = |text: &str| passes(must_be_csv, text);
        assert!(is("text/csv") && is("TEXT/CSV; charset=UTF-8") && is("text/csv; header=present; charset=US-ASCII"));
        assert!(
            !is("text/csv; charset=utf-16") && !is("text/csv; charset=iso-8859-1") && !is("text/csv; header=absent")
        );
        assert!(!is("application/json") && !is("application/csv") && !is("image/png") && !is("text/plain"));
        assert!(must_be_csv(&HeaderMap::new()).is_err());
    }
}
