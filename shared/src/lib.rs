//! The shared vocabulary and boundaries of Rota: names, clock, configuration, tenancy, database,
//! queue. No axum, no apalis, no workflow.
//!
//! Start at [`queue`], which describes the life of a job from commit to finish.

pub mod authz;
pub mod background;
pub mod clock;
pub mod compute;
pub mod config;
pub mod control_runtime;
pub mod core_dumps;
pub mod db;
pub mod email_address;
pub mod error_text;
pub mod fair_queue;
pub mod faults;
pub mod foreign_text;
pub mod health;
pub mod http_server;
pub mod identity;
pub mod ids;
pub mod leadership;
pub mod mac;
pub mod patience;
pub mod plain_json;
pub mod queue;
pub mod rate_limit;
pub mod shutdown;
pub mod store;
pub mod stores;
pub mod suggestion;
pub mod telemetry;
pub mod tenancy;
pub mod tiers;
pub mod webhooks;
