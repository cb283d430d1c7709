//! The handlers, one file per resource, under the path they serve. [`crate::router`] lists all
//! routes on one page.

pub mod health;
pub mod jwks;
pub mod v1;
