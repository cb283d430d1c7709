//! The configuration of each process, read once at start from the environment.
//!
//! Invariants: a value of these types is valid by construction; all problems are reported together,
//! one line each; a secret never appears in `Debug` output or in an error. No other module reads
//! environment variables. There is one file per section, and each field's doc names variable, unit
//! and default. [`Env`] holds the variables, `reader.rs` reads them one by one.

mod database;
mod database_url;
mod dependencies;
mod env;
mod environment;
mod errors;
mod http;
mod limits;
mod links;
mod mail;
mod outbound;
mod process;
mod rate_limit;
mod reader;
mod redis;
mod secret;
mod telemetry;
mod timing;
mod tokens;
mod url_text;
mod worker;

pub use database::{DatabaseConfig, Pooler};
pub use database_url::DatabaseUrl;
pub use dependencies::DependencyConfig;
pub use env::Env;
pub use environment::{Environment, EnvironmentConfig, TestKinds};
pub use errors::{ConfigErrors, Problem};
pub use http::{HttpConfig, Listen};
pub use limits::LimitsConfig;
pub use links::{LinkConfig, LinkKey};
pub use mail::{MailConfig, MailTransport};
pub use outbound::OutboundConfig;
pub use process::{ApiConfig, DemoConfig, MigrationConfig, OperatorConfig, SchedulerConfig, WorkerConfig};
pub use rate_limit::RateLimitConfig;
pub use redis::{RedisConfig, RedisPrefix, RedisUrl};
pub use secret::Secret;
pub use telemetry::{LogFormat, TelemetryConfig};
pub use timing::TimingConfig;
pub use tokens::TokenConfig;
pub use worker::{QueueFilter, SlotConfig};
