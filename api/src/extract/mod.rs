//! Extractors: what a handler can declare in its arguments about a request. Each rejects with a
//! [`crate::problem::Problem`].
//!
//! Invariant: a handler with these arguments never sees a malformed request. `json.rs` reads bodies
//! (`media_type.rs` checks their type, `body.rs` their size, `objects.rs` that structs are JSON
//! objects), `form.rs` HTML forms, `query.rs` query strings, `path.rs` ids in the path, `text.rs` strings to be stored,
//! `time.rs` times, `submission.rs` bodies with an idempotency key.

mod body;
mod few;
mod form;
mod json;
mod media_type;
mod objects;
mod page;
mod path;
mod query;
mod submission;
mod text;
mod time;

pub(crate) use body::{body_problem, limited_body};
pub use few::{few, optional_few};
pub use form::Form;
pub use json::Json;
pub(crate) use media_type::must_be_csv;
pub use page::{Page, PageBody, PageRequest};
pub use path::{Path, parse_id};
pub use query::Query;
pub use submission::{RequestKey, Submission};
pub use text::{optional_storable, storable};
pub use time::Timestamp;
