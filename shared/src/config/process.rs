//! The sections of each process's configuration.
//!
//! Invariant: a process requires no setting that it does not use; the owner's database URL is in
//! [`MigrationConfig`] only. Start here to see what can be configured for a process, then open the
//! section.

use super::database::{DatabaseConfig, read_owner};
use super::database_url::DatabaseUrl;
use super::dependencies::DependencyConfig;
use super::env::Env;
use super::environment::EnvironmentConfig;
use super::errors::ConfigErrors;
use super::http::HttpConfig;
use super::limits::LimitsConfig;
use super::links::LinkConfig;
use super::mail::MailConfig;
use super::outbound::OutboundConfig;
use super::rate_limit::RateLimitConfig;
use super::reader::Reader;
use super::redis::RedisConfig;
use super::telemetry::TelemetryConfig;
use super::timing::TimingConfig;
use super::tokens::TokenConfig;
use super::worker::SlotConfig;

const WORKER_METRICS_PORT: u16 = 9464;
const SCHEDULER_METRICS_PORT: u16 = 9465;

/// Implements `load`, which is the same for every process.
macro_rules! load {
    ($($config:ident),+) => {$(
        impl $config {
            /// Reads and validates all sections.
            pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
                let mut reader = Reader::new(env);
                let config = Self::read(&mut reader);
                reader.finish(config)
            }
        }
    )+};
}

load!(ApiConfig, WorkerConfig, SchedulerConfig, MigrationConfig, DemoConfig, OperatorConfig);

/// The configuration of `api serve`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The environment that the process runs in.
    pub environment: EnvironmentConfig,
    /// Logging.
    pub telemetry: TelemetryConfig,
    /// The address of the API.
    pub http: HttpConfig,
    /// The address of the metrics, if the API serves them.
    pub metrics: Option<HttpConfig>,
    /// Limits of a tenant's requests.
    pub limits: LimitsConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// For verifying links in mails.
    pub links: LinkConfig,
    /// Allowed destinations of webhooks.
    pub outbound: OutboundConfig,
    /// Timing of the queue.
    pub timing: TimingConfig,
    /// Limits on dependencies.
    pub dependencies: DependencyConfig,
    /// Limits on the rate of requests.
    pub rate_limits: RateLimitConfig,
    /// Access tokens of users.
    pub tokens: TokenConfig,
}

impl ApiConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let http = HttpConfig::read_api(reader);
        let metrics = HttpConfig::read_api_metrics(reader);
        let limits = LimitsConfig::read(reader);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        let links = LinkConfig::read(reader, environment.environment);
        let outbound = OutboundConfig::read(reader, environment.environment);
        let timing = TimingConfig::read(reader);
        let dependencies = DependencyConfig::read(reader);
        let rate_limits = RateLimitConfig::read(reader, environment.environment);
        let tokens = TokenConfig::read(reader, environment.environment);
        let (database, redis) = (database?, redis?);
        Some(Self {
            environment,
            telemetry,
            http,
            metrics,
            limits,
            database,
            redis,
            links,
            outbound,
            timing,
            dependencies,
            rate_limits,
            tokens,
        })
    }
}

/// The configuration of `worker`.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The environment that the process runs in.
    pub environment: EnvironmentConfig,
    /// Logging.
    pub telemetry: TelemetryConfig,
    /// The address of the probe.
    pub http: HttpConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// For creating links in mails.
    pub links: LinkConfig,
    /// The mail transport.
    pub mail: MailConfig,
    /// Allowed destinations of webhooks.
    pub outbound: OutboundConfig,
    /// Timing of the queue.
    pub timing: TimingConfig,
    /// Queues, and number of concurrent jobs.
    pub slots: SlotConfig,
}

impl WorkerConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let http = HttpConfig::read_probe(reader, WORKER_METRICS_PORT);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        let links = LinkConfig::read(reader, environment.environment);
        let mail = MailConfig::read(reader, environment.environment, &links);
        let outbound = OutboundConfig::read(reader, environment.environment);
        let timing = TimingConfig::read(reader);
        let slots = SlotConfig::read(reader);
        let (database, redis, mail) = (database?, redis?, mail?);
        Some(Self { environment, telemetry, http, database, redis, links, mail, outbound, timing, slots })
    }
}

/// The configuration of `scheduler`.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// The environment that the process runs in.
    pub environment: EnvironmentConfig,
    /// Logging.
    pub telemetry: TelemetryConfig,
    /// The address of the probe.
    pub http: HttpConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// Timing of the queue.
    pub timing: TimingConfig,
}

impl SchedulerConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let http = HttpConfig::read_probe(reader, SCHEDULER_METRICS_PORT);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        let timing = TimingConfig::read(reader);
        Some(Self { environment, telemetry, http, database: database?, redis: redis?, timing })
    }
}

/// The configuration of `api migrate` and of the operator commands that create tenants: the
/// database only.
#[derive(Clone, Debug)]
pub struct MigrationConfig {
    /// The environment that the process runs in.
    pub environment: EnvironmentConfig,
    /// Logging.
    pub telemetry: TelemetryConfig,
    /// `DATABASE_OWNER_URL`; required. May create roles and change the schema.
    pub owner: DatabaseUrl,
    /// The roles that a migration creates if they are missing, with the passwords given here.
    pub database: DatabaseConfig,
}

impl MigrationConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let owner = read_owner(reader, environment.environment);
        let database = DatabaseConfig::read(reader, environment.environment);
        Some(Self { environment, telemetry, owner: owner?, database: database? })
    }
}

/// The configuration of `api demo`, which signs its users in.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// The database.
    pub migration: MigrationConfig,
    /// Access tokens of users.
    pub tokens: TokenConfig,
}

impl DemoConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let migration = MigrationConfig::read(reader);
        let environment = EnvironmentConfig::read(reader).environment;
        let tokens = TokenConfig::read(reader, environment);
        Some(Self { migration: migration?, tokens })
    }
}

/// The configuration of the operator commands that inspect and control queues: both stores, no
/// other secrets.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// The environment that the process runs in.
    pub environment: EnvironmentConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
}

impl OperatorConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        Some(Self { environment, database: database?, redis: redis? })
    }
}

#[cfg(test)]
mod tests;
