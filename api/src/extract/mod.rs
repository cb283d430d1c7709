//! What a handler can state in its arguments about a request; each refuses with a [`crate::problem::Problem`].
//!
//! Invariant: a handler that names these never sees a malformed request. `json.rs` reads bodies (`media_type.rs` says of what type they
//! must be, `body.rs` bounds them, `objects.rs` says what is a struct there), `query.rs` query strings, `path.rs` ids in the path, `text.rs`
//! texts that are to be stored, `time.rs` times, `submission.rs` bodies that come with an idempotency key.

mod body;
mod few;
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
pub use json::Json;
pub(crate) use media_type::must_be_csv;
pub use page::{Page, PageBody, PageRequest};
pub use path::{Path, parse_id};
pub use query::Query;
pub use submission::{RequestKey, Submission};
pub use text::{optional_storable, storable};
pub use time::Timestamp;
