//! The configuration of each process, read once at its start from the environment.
//!
//! Invariants: a value of these types cannot be wrong; all problems are told at once, one line each; a secret is in
//! no `Debug` output and no error. No other module reads an environment variable. One file per section, each field's
//! doc naming variable, unit and default; [`Env`] is where the variables come from, `reader.rs` how one is read.

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
mod reader;
mod redis;
mod secret;
mod telemetry;
mod timing;
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
pub use process::{ApiConfig, MigrationConfig, OperatorConfig, SchedulerConfig, WorkerConfig};
pub use redis::{RedisConfig, RedisPrefix, RedisUrl};
pub use secret::Secret;
pub use telemetry::{LogFormat, TelemetryConfig};
pub use timing::TimingConfig;
pub use worker::{QueueFilter, SlotConfig};
