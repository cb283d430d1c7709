//! Starts the log of a process.
//!
//! Invariant: lines go to standard error, so that the answer of an operator's command on standard output stays clean.
//! `json_lines.rs` is the form for machines; which form and filter is told by [`crate::config::TelemetryConfig`].

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
    /// The filter is not one of `tracing-subscriber`.
    #[error("the log filter is not valid")]
    Filter(#[from] ParseError),
    /// The process has a log already.
    #[error("the log was started before")]
    Started(#[from] TryInitError),
}

/// Starts the log; the first thing that `main` does once it has its configuration.
pub fn init(config: &TelemetryConfig) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let lines = match config.format {
        LogFormat::Json => JsonLines::new(Clock::system(), io::stderr).boxed(),
        LogFormat::Pretty => {
            // In a file or a pipe escapes would stand between the words.
            let color = config.color && io::stderr().is_terminal();
            fmt::layer().with_writer(io::stderr).with_ansi(color).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    super::panics::bound_reports();
    Ok(())
}
