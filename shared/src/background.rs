//! What a background process (worker, scheduler) has beside its work: log, metrics, a probe to be watched by, a way to stop.
//!
//! Invariant: the probe is there before the work begins and ends after it, so that a drain can be watched.

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
    /// The log could not be set up.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// The metrics could not be set up.
    #[error("metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Signals cannot be listened to.
    #[error("signals")]
    Signals(#[source] std::io::Error),
    /// The probe's address is taken or not ours.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs `work` with its stop token between the start and the end of everything around it.
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
    // A second provider in one process is no error: it is the same one.
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
