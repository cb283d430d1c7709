//! Whether a process can do its work: the answers behind `/api/health/readiness`.
//!
//! Invariant: a process is ready unless something it cannot do without is down. What it can do without for a while is
//! `degraded`, told but no reason to take the process out of service (Redis for the API: 202 means durable in
//! PostgreSQL). The probe ([`crate::http_server::probe`]) and the API's health routes show it.

use futures::future::{BoxFuture, FutureExt};
use serde::Serialize;
use utoipa::ToSchema;

/// How one part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It works.
    Up,
    /// It does not, and the process serves all the same.
    Degraded,
    /// It does not, and the process cannot serve.
    Down,
}

/// One part and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
pub struct Check {
    /// What is looked at, e.g. `database`. Never an address.
    pub name: &'static str,
    /// How it is.
    pub state: CheckState,
}

/// The state of a process with all its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// The worst state of the parts; `up` without parts.
    pub status: CheckState,
    /// The parts.
    pub checks: Vec<Check>,
}

impl HealthReport {
    /// Sums up `checks`.
    pub fn new(checks: Vec<Check>) -> Self {
        let any = |state| checks.iter().any(|check| check.state == state);
        let status = match (any(CheckState::Down), any(CheckState::Degraded)) {
            (true, _) => CheckState::Down,
            (false, true) => CheckState::Degraded,
            (false, false) => CheckState::Up,
        };
        Self { status, checks }
    }

    /// Whether the process should be given work.
    pub fn is_ready(&self) -> bool {
        self.status != CheckState::Down
    }
}

/// What a process looks at to tell how it is. Answers must come within about a second: a probe gives up soon after.
pub trait HealthChecks: Send + Sync + 'static {
    /// Looks at every part.
    fn check(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// A closure is enough where the state is at hand, say in a watch channel.
impl<F: Fn() -> Vec<Check> + Send + Sync + 'static> HealthChecks for F {
    fn check(&self) -> BoxFuture<'_, Vec<Check>> {
        let checks = self();
        async move { checks }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_is_ready_and_down_is_not() {
        let report = |states: &[CheckState]| {
            HealthReport::new(states.iter().map(|state| Check { name: "part", state: *state }).collect())
        };
        assert!(report(&[]).is_ready());
        assert_eq!(report(&[CheckState::Up, CheckState::Degraded]).status, CheckState::Degraded);
        assert!(report(&[CheckState::Up, CheckState::Degraded]).is_ready());
        assert!(!report(&[CheckState::Down, CheckState::Degraded]).is_ready());
        let json = serde_json::to_string(&report(&[CheckState::Up])).unwrap();
        assert_eq!(json, r#"{"status":"up","checks":[{"name":"part","state":"up"}]}"#);
    }
}
