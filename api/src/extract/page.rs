//! Pagination: opaque cursors, and the `Link` header of RFC 8288.
//!
//! Invariant: lists are ordered by id, newest first, and a cursor is the last id seen, so rows
//! inserted or deleted in the meantime neither shift nor repeat the others. A page ends when its
//! items reach [`MAX_PAGE_BYTES`], whatever the requested limit.

use std::marker::PhantomData;

use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, Uri, header::LINK};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::plain_json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Json;
use crate::problem::{Problem, ProblemCode};

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 200;
/// Maximum bytes of a page's items; the first item is included whatever its size.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// A requested page.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Maximum number of items.
    pub limit: u16,
    /// Only items older than this id.
    pub before: Option<Uuid>,
}

impl PageRequest {
    /// Reads the two parameters that every list has.
    pub fn new(limit: Option<u16>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::new(ProblemCode::InvalidQuery).detail(format!("limit must be 1 to {MAX_LIMIT}")));
        }
        Ok(Self { limit, before: cursor.map(decode).transpose()? })
    }

    /// One more than the limit, to detect whether there is another page.
    pub fn fetch_limit(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Builds the page from `items`, which were fetched with [`Self::fetch_limit`].
    ///
    /// # Panics
    /// If an item cannot be serialized as JSON: items are plain data.
    pub fn page<T: Serialize>(&self, items: Vec<T>, id: impl Fn(&T) -> Uuid, uri: &Uri) -> Page<T> {
        let (fetched, mut bytes, mut last) = (items.len(), 0, None);
        let mut written: Vec<Box<RawValue>> = Vec::with_capacity(fetched.min(usize::from(self.limit)));
        for item in items.into_iter().take(usize::from(self.limit)) {
            let text = plain_json::raw(&item);
            bytes += text.get().len();
            if bytes > MAX_PAGE_BYTES && !written.is_empty() {
                break;
            }
            last = Some(id(&item));
            written.push(text);
        }
        let more = fetched > written.len();
        let next_cursor = last.filter(|_| more).map(|last| BASE64URL_NOPAD.encode(last.as_bytes()));
        let link = next_cursor.as_deref().map(|cursor| next_link(uri, cursor));
        Page { body: PageBody { items: written, next_cursor }, link, items: PhantomData }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageBody<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// The `cursor` parameter of the next page; missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A page as a response.
pub struct Page<T> {
    body: PageBody<Box<RawValue>>,
    link: Option<String>,
    items: PhantomData<T>,
}

impl<T> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        if let Some(link) = self.link.and_then(|link| HeaderValue::from_str(&link).ok()) {
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

fn decode(cursor: &str) -> Result<Uuid, Problem> {
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok();
    bytes
        .and_then(|bytes| Uuid::from_slice(&bytes).ok())
        .ok_or_else(|| Problem::new(ProblemCode::InvalidQuery).detail("cursor must be a next_cursor value"))
}

/// The link to the same list with another cursor.
fn next_link(uri: &Uri, cursor: &str) -> String {
    let others =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<&str> = others.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    format!("<{}?{}{separator}cursor={cursor}>; rel=\"next\"", uri.path(), query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_links_to_the_next_page() {
        let request = PageRequest::new(Some(2), None).unwrap();
        let ids: Vec<Uuid> = (1..=3).rev().map(Uuid::from_u128).collect();
        let page = request.page(ids, |id| *id, &"/api/v1/jobs?kind=noop&limit=2".parse().unwrap());
        assert_eq!(page.body.items.len(), 2);
        let cursor = page.body.next_cursor.unwrap();
        assert_eq!(page.link.unwrap(), format!("</api/v1/jobs?kind=noop&limit=2&cursor={cursor}>; rel=\"next\""));
        assert_eq!(PageRequest::new(None, Some(&cursor)).unwrap().before, Some(Uuid::from_u128(2)));
    }

    /// The two quotes of a serialized item count as bytes.
    #[test]
    fn a_page_is_bounded_in_bytes_and_has_at_least_one_item() {
        let uri = Uri::from_static("/x");
        let request = PageRequest::new(Some(200), None).unwrap();
        let page = |sizes: &[usize]| {
            let items = sizes.iter().map(|bytes| "x".repeat(bytes - 2)).collect();
            let page = request.page(items, |_| Uuid::nil(), &uri);
            (page.body.items.len(), page.body.next_cursor.is_some())
        };
        assert_eq!(page(&[MAX_PAGE_BYTES / 2, MAX_PAGE_BYTES / 2]), (2, false));
        assert_eq!(page(&[MAX_PAGE_BYTES / 2, MAX_PAGE_BYTES / 2 + 1]), (1, true));
        assert_eq!(page(&[2 * MAX_PAGE_BYTES]), (1, false));
        assert_eq!(page(&[2 * MAX_PAGE_BYTES, 2]), (1, true));
    }

    #[test]
    fn the_last_page_has_no_link_and_invalid_parameters_are_refused() {
        let request = PageRequest::new(Some(2), None).unwrap();
        assert!(request.page(vec![Uuid::nil(); 2], |id| *id, &Uri::from_static("/x")).link.is_none());
        assert!(
            PageRequest::new(Some(0), None).is_err()
                && PageRequest::new(Some(200), None).is_ok()
                && PageRequest::new(Some(201), None).is_err()
        );
        assert!(PageRequest::new(None, Some("x")).is_err());
    }
}
