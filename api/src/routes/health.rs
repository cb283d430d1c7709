//! Liveness and readiness of the API.
//!
//! Invariant: liveness checks nothing, since a restart does not repair a database; readiness is
//! `down` only when the API could not keep its promises, so without Redis it is `degraded` and
//! still 200. No health route needs a credential, and none reveals an address or the text of an
//! error.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use shared::health::{Check, CheckState, HealthChecks, HealthReport};
use shared::plain_json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::Json;
use crate::problem::{Problem, ProblemCode};

/// Checks that take longer count as failed, since a probe does not wait longer either.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Checks = Arc<dyn HealthChecks>;

/// The health routes.
pub fn router<S: Clone + Send + Sync + 'static>(checks: Checks) -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(liveness)).routes(routes!(readiness)).with_state(checks)
}

/// The health of a process.
#[derive(Debug, serde::Serialize, ToSchema)]
struct Health {
    /// `up`, or `degraded` if a part is unavailable that only some promises depend on.
    #[schema(example = "up")]
    status: CheckState,
    /// The parts that were checked.
    #[schema(example = json!([{"name": "database", "state": "up"}]))]
    checks: Vec<Check>,
}

/// The liveness of a process.
#[derive(Debug, serde::Serialize, ToSchema)]
struct Liveness {
    /// Always `up`.
    status: CheckState,
}

/// Returns the health of the service.
#[utoipa::path(get, path = "/api/health", operation_id = "get_health", tag = "health", security(()),
    responses((status = 200, body = Health, description = "The service is up or degraded")))]
async fn health(State(checks): State<Checks>) -> Result<Json<Health>, Problem> {
    report(&checks).await
}

/// Returns whether the process is alive.
#[utoipa::path(get, path = "/api/health/liveness", operation_id = "get_liveness", tag = "health", security(()),
    responses((status = 200, body = Liveness, description = "The process responds")))]
async fn liveness() -> Json<Liveness> {
    Json(Liveness { status: CheckState::Up })
}

/// Returns whether the process is ready for requests.
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
    let checks = plain_json::value(&report.checks);
    Err(Problem::new(ProblemCode::Unavailable).member("checks", checks))
}
