//! Logging settings of a process.
//!
//! Invariant: a filter that cannot be parsed prevents the start, because a process without logs
//! would leave the operator blind.

use tracing_subscriber::EnvFilter;

use super::environment::Environment;
use super::reader::{Reader, Variable};

const FORMAT: Variable = Variable::new("ROTA_LOG_FORMAT", "json or pretty");
const FILTER: Variable = Variable::new("RUST_LOG", "a filter such as info,shared=debug");

const NO_COLOR: Variable = Variable::new("NO_COLOR", "anything, to disable colours");

const DEFAULT_FILTER: &str = "info,sqlx=warn";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For humans.
    Pretty,
}

/// The telemetry section.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// `ROTA_LOG_FORMAT`; default `pretty` in development, else `json`.
    pub format: LogFormat,
    /// `RUST_LOG`; default `info,sqlx=warn`. A valid filter of `tracing-subscriber`.
    pub filter: String,
    /// `NO_COLOR`; colours are used on terminals only, and only if this variable is not set
    /// (<https://no-color.org>).
    pub color: bool,
}

impl TelemetryConfig {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Self {
        let default = if environment == Environment::Development { LogFormat::Pretty } else { LogFormat::Json };
        Self {
            color: reader.optional(NO_COLOR, |text| Some(text.to_owned())).is_none(),
            format: reader.or(FORMAT, default, |text| text.parse().ok()),
            filter: reader
                .or(FILTER, DEFAULT_FILTER.to_owned(), |text| EnvFilter::try_new(text).ok().map(|_| text.to_owned())),
        }
    }
}
