//! `api openapi`.

use std::sync::Arc;

/// Prints the document that `/api/openapi.json` serves.
pub fn print() -> anyhow::Result<()> {
    super::answer(&crate::openapi::document(crate::router::routes(Arc::new(Vec::new))).to_pretty_json()?)
}
