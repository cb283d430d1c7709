//! Initialises the log of a process.
//!
//! Invariant: lines go to standard error, so that standard output carries only the output of
//! operator commands. `json_lines.rs` is the machine-readable format;
//! [`crate::config::TelemetryConfig`] selects format and filter.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::json_lines::JsonLines;
use crate::clock::Clock;
use crate::config::{LogFormat, TelemetryConfig};

/// Why a log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `tracing-subscriber` cannot parse the filter.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// The process already has a log.
    #[error("the log was started before")]
    Started(#[from] TryInitError),
}

/// Initialises the log. `main` calls this as soon as it has its configuration.
pub fn init(config: &TelemetryConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let lines = match config.format {
        LogFormat::Json => JsonLines::new(Clock::system(), io::stderr).boxed(),
        LogFormat::Pretty => {
            // Files and pipes get no colour escapes.
            let color = config.color && io::stderr().is_terminal();
            fmt::layer().with_writer(io::stderr).with_ansi(color).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    super::panics::bound_reports();
    Ok(())
}
