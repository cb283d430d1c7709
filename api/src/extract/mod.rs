//! What a handler can state in its arguments about a request; each refuses with a [`crate::problem::Problem`].
//!
//! Invariant: a handler that names these never sees a malformed request. `json.rs` reads bodies, `query.rs` query
//! strings, `path.rs` ids in the path, `text.rs` texts that are to be stored.

mod few;
mod json;
mod page;
mod path;
mod query;
mod submission;
mod text;

pub use few::{few, optional_few};
pub use json::Json;
pub(crate) use json::body_problem;
pub use page::{Page, PageBody, PageRequest};
pub use path::Path;
pub use query::Query;
pub use submission::Submission;
pub use text::{optional_storable, storable};
