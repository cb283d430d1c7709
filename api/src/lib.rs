//! The HTTP API and the operator's commands.


pub mod extract;
pub mod leads_import;
pub mod middleware;
pub mod openapi;
pub mod problem;
pub mod routes;
pub mod server;
