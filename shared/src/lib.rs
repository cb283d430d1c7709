//! The vocabulary and the walls of Rota: names, clock, configuration, tenancy, database, queue. No axum, no apalis, no workflow.

pub mod clock;
pub mod config;
pub mod health;
pub mod http_server;
pub mod ids;
pub mod shutdown;
pub mod telemetry;
