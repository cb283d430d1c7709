//! Whether the API is alive and ready.
//!
//! Invariant: liveness looks at nothing, since a restart mends no database; readiness is `down` only when the API
//! could not keep its promises, so without Redis it is `degraded` and still 200. None of it needs a credential, and
//! none tells an address or an error's text.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use shared::health::{Check, CheckState, HealthChecks, HealthReport};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::Json;
use crate::problem::{Problem, ProblemCode};

/// Checks that take longer count as failed: a probe waits no longer itself.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Checks = Arc<dyn HealthChecks>;

/// The health routes.
pub fn router<S: Clone + Send + Sync + 'static>(checks: Checks) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(liveness)).routes(routes!(readiness)).with_state(checks)
}

/// How a process is.
#[derive(Debug, serde::Serialize, ToSchema)]
struct Health {
    /// `up`, or `degraded` when a part is away that is not needed for every promise.
    #[schema(example = "up")]
    status: CheckState,
    /// The parts looked at.
    #[schema(example = json!([{"name": "database", "state": "up"}]))]
    checks: Vec<Check>,
}

/// That a process lives.
#[derive(Debug, serde::Serialize, ToSchema)]
struct Liveness {
    /// Always `up`.
    status: CheckState,
}

/// How the service is, in short.
#[utoipa::path(get, path = "/api/health", operation_id = "get_health", tag = "health", security(()),
    responses((status = 200, body = Health, description = "The service is up, or degraded")))]
async fn health(State(checks): State<Checks>) -> Result<Json<Health>, Problem> {
    report(&checks).await
}

/// Whether the process lives.
#[utoipa::path(get, path = "/api/health/liveness", operation_id = "get_liveness", tag = "health", security(()),
    responses((status = 200, body = Liveness, description = "The process answers")))]
async fn liveness() -> Json<Liveness> {
    Json(Liveness { status: CheckState::Up })
}

/// Whether the process should be given requests.
#[utoipa::path(get, path = "/api/health/readiness", operation_id = "get_readiness", tag = "health", security(()),
    responses((status = 200, body = Health, description = "Requests can be served")))]
async fn readiness(State(checks): State<Checks>) -> Result<Json<Health>, Problem> {
    report(&checks).await
}

async fn report(checks: &Checks) -> Result<Json<Health>, Problem> {
    let Ok(checks) = tokio::time::timeout(CHECK_TIMEOUT, checks.check()).await else {
        return Err(ProblemCode::Unavailable.into());
    };
    let report = HealthReport::new(checks);
    if report.is_ready() {
        return Ok(Json(Health { status: report.status, checks: report.checks }));
    }
    let checks = serde_json::to_value(report.checks).expect("checks are plain data");
    Err(Problem::new(ProblemCode::Unavailable).member("checks", checks))
}
