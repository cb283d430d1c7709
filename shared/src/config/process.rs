//! Which sections each process needs.
//!
//! Invariant: a process asks for nothing it does not use; the owner's database address is in [`MigrationConfig`]
//! alone. Start here to see what a process can be told, then open the section.

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
use super::reader::Reader;
use super::redis::RedisConfig;
use super::telemetry::TelemetryConfig;
use super::timing::TimingConfig;
use super::worker::SlotConfig;

const WORKER_METRICS_PORT: u16 = 9464;
const SCHEDULER_METRICS_PORT: u16 = 9465;

/// The configuration of `api serve`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where the process runs.
    pub environment: EnvironmentConfig,
    /// How it logs.
    pub telemetry: TelemetryConfig,
    /// Where it listens.
    pub http: HttpConfig,
    /// Where its metrics are, if not beside its routes.
    pub metrics: Option<HttpConfig>,
    /// What a request of a tenant may bring.
    pub limits: LimitsConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// Unsubscribe links, to be checked.
    pub links: LinkConfig,
    /// Where webhooks may go.
    pub outbound: OutboundConfig,
    /// The queue's pace.
    pub timing: TimingConfig,
    /// How many dependencies are accepted.
    pub dependencies: DependencyConfig,
}

impl ApiConfig {
    /// Reads and judges all sections.
    pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

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
        })
    }
}

/// The configuration of `worker`.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where the process runs.
    pub environment: EnvironmentConfig,
    /// How it logs.
    pub telemetry: TelemetryConfig,
    /// Where its probe listens.
    pub http: HttpConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// Unsubscribe links, to be made.
    pub links: LinkConfig,
    /// Where mails go.
    pub mail: MailConfig,
    /// Where webhooks may go.
    pub outbound: OutboundConfig,
    /// The queue's pace.
    pub timing: TimingConfig,
    /// Which queues, how many jobs at once.
    pub slots: SlotConfig,
}

impl WorkerConfig {
    /// Reads and judges all sections.
    pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let http = HttpConfig::read_probe(reader, WORKER_METRICS_PORT);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        let links = LinkConfig::read(reader, environment.environment);
        let mail = MailConfig::read(reader, environment.environment);
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
    /// Where the process runs.
    pub environment: EnvironmentConfig,
    /// How it logs.
    pub telemetry: TelemetryConfig,
    /// Where its probe listens.
    pub http: HttpConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
    /// The queue's pace.
    pub timing: TimingConfig,
}

impl SchedulerConfig {
    /// Reads and judges all sections.
    pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

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

/// The configuration of `api migrate` and of the operator's commands that create tenants: the database alone.
#[derive(Clone, Debug)]
pub struct MigrationConfig {
    /// Where the process runs.
    pub environment: EnvironmentConfig,
    /// How it logs.
    pub telemetry: TelemetryConfig,
    /// `DATABASE_OWNER_URL`; required. May create roles and change the schema.
    pub owner: DatabaseUrl,
    /// The roles that a migration creates where they are missing, with the passwords given here.
    pub database: DatabaseConfig,
}

impl MigrationConfig {
    /// Reads and judges all sections.
    pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let telemetry = TelemetryConfig::read(reader, environment.environment);
        let owner = read_owner(reader, environment.environment);
        let database = DatabaseConfig::read(reader, environment.environment);
        Some(Self { environment, telemetry, owner: owner?, database: database? })
    }
}

/// The configuration of the operator's commands that look into queues and steer them: both stores, no secrets beside.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Where the process runs.
    pub environment: EnvironmentConfig,
    /// The ledger.
    pub database: DatabaseConfig,
    /// The index.
    pub redis: RedisConfig,
}

impl OperatorConfig {
    /// Reads and judges all sections.
    pub fn load(env: &Env) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(env);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let environment = EnvironmentConfig::read(reader);
        let database = DatabaseConfig::read(reader, environment.environment);
        let redis = RedisConfig::read(reader);
        Some(Self { environment, database: database?, redis: redis? })
    }
}

#[cfg(test)]
mod tests;
