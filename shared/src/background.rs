//! What a background process (worker, scheduler) runs besides its work: logging, metrics, a health
//! probe and shutdown.
//!
//! Invariant: the probe starts before the work and stops after it, so a drain can be observed.

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{EnvironmentConfig, Listen, TelemetryConfig},
    health::{self, HealthChecks},
    http_server::{
        ListenError, bind,
        probe::{self, Probe},
    },
    shutdown::Shutdown,
    telemetry::{logging, metrics},
};

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Logging could not be initialised.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// The metrics recorder could not be installed.
    #[error("metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Signal handlers could not be installed.
    #[error("signals")]
    Signals(#[source] std::io::Error),
    /// The probe's address is in use or not permitted.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs `work` with a stop token, after starting everything around it and before stopping that
/// again.
pub async fn run<F, T>(
    environment: &EnvironmentConfig,
    telemetry: &TelemetryConfig,
    listen: Listen,
    checks: Arc<dyn HealthChecks>,
    version: &'static str,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<T, StartError>
where
    F: Future<Output = T>,
{
    // A second provider in one process is not an error: it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    logging::init(telemetry)?;
    environment.warn_if_assumed();
    let metrics = metrics::install()?;
    let shutdown = Shutdown::new().map_err(StartError::Signals)?;
    let (listener, listen) = bind(listen, "HOST, METRICS_PORT").await?;
    let after_work = CancellationToken::new();
    tokio::spawn(metrics::run_upkeep(metrics.clone(), version, after_work.clone()));
    let probe =
        tokio::spawn(probe::serve(listener, Probe { metrics, checks: Arc::clone(&checks) }, after_work.clone()));
    tracing::info!(%listen, version, "started");
    tokio::spawn(health::watch(checks, after_work.clone()));
    let result = work(shutdown.token()).await;
    after_work.cancel();
    let _ = probe.await;
    tracing::info!("ended");
    Ok(result)
}
