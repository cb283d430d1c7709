//! The HTTP API and the operator's commands.

pub mod leads_import;
