//! What work exists: the job trait, the registry and one file for each kind.

pub mod ports;
pub mod templates;
