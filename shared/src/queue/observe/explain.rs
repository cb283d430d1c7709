//! Explains why a job waits: exactly one reason, the jobs ahead of it, and an estimated start.
//!
//! Invariant: the reason is the outermost condition that must change for the job to run. First its
//! own conditions (dependencies, time), then pauses by an operator, then whether a worker serves
//! the queue, then its tenant's limits, then its tenant's other jobs. If none of these applies, the
//! job is about to be dispatched.
//!
//! Next: [`estimate`] for the time.

mod estimate;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::queue::{
    Index, IndexState, JobState, Priority,
    control::cascade,
    index::{JobPosition, Place},
};
use crate::{db::TenantTx, store::webhook_endpoints::OPENS_AFTER, webhooks::DELIVERY_KIND};

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WaitReason)]
pub enum Reason {
    /// Other jobs must be final first.
    WaitingOnJobs,
    /// A dependency failed or was cancelled, so the job is about to be cancelled too.
    BeingCancelled,
    /// It sends a message to a failing endpoint, which another message tries first.
    EndpointFailing,
    /// It failed, and its next attempt is not due.
    BackingOff,
    /// Its `run_at` is in the future.
    NotDue,
    /// An operator paused the queue.
    QueuePaused,
    /// An operator paused the tenant.
    TenantPaused,
    /// No worker serves the queue.
    NoWorker,
    /// The tenant's cap on running jobs is reached.
    TenantCap,
    /// The tenant's rate of starts is used up for now.
    TenantRate,
    /// Other jobs of the same tenant are ahead of it.
    BehindOwnJobs,
    /// It is the tenant's next job; it starts when the tenant gets a slot.
    Dispatching,
}

/// The explanation for one job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The job's id.
    pub id: Uuid,
    /// Its state, as shown with the job.
    pub state: &'static str,
    /// Why it waits; `None` for a job that is running or final.
    pub reason: Option<Reason>,
    /// The reason as readable text.
    pub detail: String,
    /// Its position among its tenant's jobs that could start, from 1.
    pub position: Option<u64>,
    /// Number of those jobs ahead of it.
    pub ahead_of_it: Option<u64>,
    /// The earliest time at which it may run.
    pub run_at: DateTime<Utc>,
    /// Estimated start under current conditions; `None` if time alone does not lead to a start.
    pub estimated_start_at: Option<DateTime<Utc>>,
}

/// The ledger's data on a job.
struct Row {
    id: Uuid,
    queue: String,
    state: JobState,
    priority: i16,
    failures: i16,
    waits_for: i16,
    run_at: DateTime<Utc>,
    now: DateTime<Utc>,
    /// Whether it sends a message to a failing endpoint, which receives one message at a time.
    endpoint_failing: bool,
}

/// Explains why the job with this id waits, if it belongs to the tenant. While Redis is
/// unavailable, the explanation comes from the ledger alone.
pub async fn explain(transaction: &mut TenantTx, index: &Index, id: Uuid) -> Result<Option<Explanation>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, queue, state as "state: JobState", priority, failures, waits_for, run_at, now() as "now!",
                  case when kind = $2 then exists (
                    select from webhook_deliveries d join webhook_endpoints e on e.tenant_id = d.tenant_id and e.id = d.endpoint_id
                    where d.tenant_id = jobs.tenant_id and d.id = (args ->> 'delivery_id')::uuid and e.failure_count >= $3) else false end
                    as "endpoint_failing!"
           from jobs where id = $1"#,
        id,
        DELIVERY_KIND,
        OPENS_AFTER
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.state.is_final() {
        return Ok(Some(row.without_reason(row.state.as_str(), "The job is in a final state.")));
    }
    if row.waits_for > 0 && cascade::will_cancel(transaction, id).await? {
        return Ok(Some(row.being_cancelled()));
    }
    let queue = row.queue.parse().expect("the ledger holds valid queue names");
    let priority = Priority::from_ledger(row.priority);
    let position = match index.position(&queue, id, transaction.tenant(), priority).await {
        Ok(position) => Some(position).filter(|position| position.state == IndexState::Ready),
        Err(error) => {
            tracing::debug!(%queue, %error, "failed to read the position of a job from the index");
            None
        }
    };
    Ok(Some(row.explain(position.as_ref())))
}

impl Row {
    fn explain(&self, position: Option<&JobPosition>) -> Explanation {
        if position.is_some_and(|position| position.place == Place::Held) {
            return self.without_reason("running", "A worker is running the job or is about to start it.");
        }
        let (reason, detail) = self.own_reason().or_else(|| Some(position?.reason(&self.queue))).unwrap_or_else(|| {
            (
                Reason::Dispatching,
                "The job is committed; the index is unavailable or being rebuilt and will include it.".to_owned(),
            )
        });
        let ahead_of_it = position.and_then(|position| match position.place {
            Place::Flow(ahead) => Some(ahead),
            _ => None,
        });
        Explanation {
            id: self.id,
            state: if self.is_due() && self.state == JobState::Scheduled { "available" } else { self.state.as_str() },
            reason: Some(reason),
            detail,
            position: ahead_of_it.map(|ahead| ahead + 1),
            ahead_of_it,
            run_at: self.run_at,
            estimated_start_at: estimate::start(reason, self.run_at, self.now, ahead_of_it, position),
        }
    }

    fn is_due(&self) -> bool {
        self.run_at <= self.now && self.waits_for == 0
    }

    /// The job's own conditions.
    fn own_reason(&self) -> Option<(Reason, String)> {
        if self.waits_for > 0 {
            let detail = format!("Dependencies that are not final yet: {}.", self.waits_for);
            return Some((Reason::WaitingOnJobs, detail));
        }
        if self.run_at <= self.now {
            return None;
        }
        if self.endpoint_failing {
            let detail = "Its endpoint is failing and receives one message at a time; this one waits until run_at.";
            return Some((Reason::EndpointFailing, detail.to_owned()));
        }
        Some(if self.state == JobState::Retryable {
            (Reason::BackingOff, format!("It failed {} times and will be retried at run_at.", self.failures))
        } else {
            (Reason::NotDue, "It is scheduled for run_at.".to_owned())
        })
    }

    fn being_cancelled(&self) -> Explanation {
        let detail =
            "A job that it depends on failed or was cancelled, so it will not run and is about to be cancelled.";
        Explanation { reason: Some(Reason::BeingCancelled), ..self.without_reason(self.state.as_str(), detail) }
    }

    fn without_reason(&self, state: &'static str, detail: &str) -> Explanation {
        Explanation {
            id: self.id,
            state,
            reason: None,
            detail: detail.to_owned(),
            position: None,
            ahead_of_it: None,
            run_at: self.run_at,
            estimated_start_at: None,
        }
    }
}

impl JobPosition {
    /// What keeps a due job from starting.
    fn reason(&self, queue: &str) -> (Reason, String) {
        let tokens = self.limits.rate.zip(self.tokens);
        match (self.limits.max_running, tokens, self.place) {
            _ if self.queue_paused => (Reason::QueuePaused, format!("An operator paused the queue {queue}.")),
            _ if self.limits.paused => {
                (Reason::TenantPaused, format!("An operator paused your jobs in the queue {queue}."))
            }
            _ if self.workers == 0 => (Reason::NoWorker, format!("No worker currently serves the queue {queue}.")),
            (Some(cap), ..) if i64::from(self.running) >= i64::from(cap) => {
                (Reason::TenantCap, format!("{} of your jobs run in the queue {queue} (limit {cap}).", self.running))
            }
            (_, Some((rate, tokens)), _) if tokens < 1.0 => (
                Reason::TenantRate,
                format!("The limit in the queue {queue} is {} starts of your jobs per second.", rate.per_second),
            ),
            (.., Place::Flow(ahead)) if ahead > 0 => {
                (Reason::BehindOwnJobs, format!("{ahead} of your jobs in the queue {queue} are ahead of it."))
            }
            (.., Place::Flow(_)) => {
                let others = self.other_tenants;
                (
                    Reason::Dispatching,
                    format!("It is your next job; the queue {queue} is shared between you and {others} others."),
                )
            }
            _ => (Reason::Dispatching, "The job is committed and is being added to the index.".to_owned()),
        }
    }
}
