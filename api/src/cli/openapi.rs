//! `api openapi`.

use std::sync::Arc;

use jobs::registry::Registry;
use shared::config::TestKinds;

/// Prints the document that `/api/openapi.json` serves.
pub fn print() -> anyhow::Result<()> {
    let registry = Registry::new(TestKinds::None);
    super::answer(&crate::openapi::document(crate::router::routes(Arc::new(Vec::new)), &registry).to_pretty_json()?)
}
