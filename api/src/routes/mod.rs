//! The handlers, one file a resource, under the path they serve. [`crate::router`] has them all on one page.

pub mod health;
pub mod metrics;
pub mod v1;
