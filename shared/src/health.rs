//! Health of a process: the checks behind `/api/health/readiness`.
//!
//! Invariant: a process is ready unless a part that it depends on is down. A part that it can do
//! without for a while is reported as `degraded`, which does not take the process out of service
//! (Redis for the API: 202 means durable in PostgreSQL). Every change is logged once ([`watch`]).
//! The probe ([`crate::http_server::probe`]) and the API's health routes return the report.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// Interval between the checks for the log.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// State of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// The part works.
    Up,
    /// The part does not work; the process can still serve.
    Degraded,
    /// The part does not work, and the process cannot serve.
    Down,
}

/// One part and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
pub struct Check {
    /// Name of the part, e.g. `database`. Never an address.
    pub name: &'static str,
    /// State of the part.
    pub state: CheckState,
    /// Why the part is not up, for an operator: no address, no name, no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
}

impl Check {
    /// A part that works.
    pub const fn up(name: &'static str) -> Self {
        Self { name, state: CheckState::Up, reason: None }
    }

    /// A part that is degraded or down, with the reason.
    pub fn failing(name: &'static str, state: CheckState, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { name, state, reason: Some(reason.into()) }
    }
}

/// The state of a process and all its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// The worst state of the parts; `up` without parts.
    pub status: CheckState,
    /// The parts.
    pub checks: Vec<Check>,
}

impl HealthReport {
    /// Summarises `checks`.
    pub fn new(checks: Vec<Check>) -> Self {
        let any = |state| checks.iter().any(|check| check.state == state);
        let status = match (any(CheckState::Down), any(CheckState::Degraded)) {
            (true, _) => CheckState::Down,
            (false, true) => CheckState::Degraded,
            (false, false) => CheckState::Up,
        };
        Self { status, checks }
    }

    /// Whether the process should receive traffic or work.
    pub fn is_ready(&self) -> bool {
        self.status != CheckState::Down
    }
}

/// The health checks of a process. They must return within about a second, because a probe times
/// out soon after.
pub trait HealthChecks: Send + Sync + 'static {
    /// Checks every part.
    fn check(&self) -> BoxFuture<'_, Vec<Check>>;

    /// Maintenance that runs every few seconds to keep the parts healthy; nothing by default.
    fn maintain(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// A closure is enough where the state is at hand, for example in a watch channel.
impl<F: Fn() -> Vec<Check> + Send + Sync + 'static> HealthChecks for F {
    fn check(&self) -> BoxFuture<'_, Vec<Check>> {
        let checks = self();
        async move { checks }.boxed()
    }
}

/// Logs, until `stop`, each failure of a part and each recovery once, with the reason.
pub async fn watch(checks: Arc<dyn HealthChecks>, stop: CancellationToken) {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Some(found) = stop.run_until_cancelled(checks.check()).await else { return };
        seen.note(found);
        checks.maintain().await;
    }
}

/// The last results, and the last logged ones.
#[derive(Default)]
struct Seen {
    last: HashMap<&'static str, Check>,
    logged: HashMap<&'static str, Check>,
}

impl Seen {
    /// Returns the changes to log. A failure counts once it is found twice in a row, so a single
    /// late response is not logged.
    fn changes(&mut self, found: Vec<Check>) -> Vec<Check> {
        let mut changes = Vec::new();
        for check in found {
            let repeated = self.last.insert(check.name, check.clone()).as_ref() == Some(&check);
            let is_new = match self.logged.get(check.name) {
                None => check.state != CheckState::Up,
                Some(logged) => *logged != check,
            };
            if is_new && (repeated || check.state == CheckState::Up) {
                self.logged.insert(check.name, check.clone());
                changes.push(check);
            }
        }
        changes
    }

    fn note(&mut self, found: Vec<Check>) {
        for Check { name: part, state, reason } in self.changes(found) {
            let reason = reason.as_deref();
            match state {
                CheckState::Up => tracing::info!(part, "works again"),
                CheckState::Degraded => tracing::warn!(part, reason, "degraded; the process continues to serve"),
                CheckState::Down => tracing::error!(part, reason, "down; the process cannot serve without it"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_is_ready_and_down_is_not() {
        let report = |states: &[CheckState]| {
            HealthReport::new(states.iter().map(|state| Check { name: "part", state: *state, reason: None }).collect())
        };
        assert!(report(&[]).is_ready());
        assert_eq!(report(&[CheckState::Up, CheckState::Degraded]).status, CheckState::Degraded);
        assert!(report(&[CheckState::Up, CheckState::Degraded]).is_ready());
        assert!(!report(&[CheckState::Down, CheckState::Degraded]).is_ready());
        let json = serde_json::to_string(&report(&[CheckState::Up])).unwrap();
        assert_eq!(json, r#"{"status":"up","checks":[{"name":"part","state":"up"}]}"#);
    }

    #[test]
    fn an_outage_is_logged_once_when_it_lasts_and_once_when_it_ends() {
        let (up, down) = (Check::up("database"), Check::failing("database", CheckState::Down, "no such database"));
        let other = Check::failing("database", CheckState::Down, "the password is refused");
        let mut seen = Seen::default();
        let rounds = [&up, &down, &up, &down, &down, &down, &other, &other, &up, &up];
        let logged: Vec<Vec<Check>> = rounds.iter().map(|check| seen.changes(vec![(*check).clone()])).collect();
        let mut expected = vec![Vec::new(); rounds.len()];
        expected[4] = vec![down];
        expected[7] = vec![other];
        expected[8] = vec![up];
        assert_eq!(logged, expected);
    }
}
