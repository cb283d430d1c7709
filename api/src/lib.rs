//! The HTTP API and the operator's commands.
//!
//! The path of a request: [`server`] (connections and layers), [`router`] (every route on one
//! page), [`routes`] (handlers, whose arguments declare credential, permission and body), then a
//! store or the queue in `shared`.

pub mod auth;
pub mod cli;
pub mod client_address;
pub mod dependency_quota;
pub mod extract;
pub mod in_flight;
pub mod job_events;
pub mod leads_import;
pub mod middleware;
pub mod openapi;
pub mod problem;
pub mod rate_limit;
pub mod router;
pub mod routes;
pub mod server;
pub mod state;
pub mod tenant_counts;
pub mod turns;
pub mod uploads;
