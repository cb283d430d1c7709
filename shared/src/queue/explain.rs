//! Why a job waits: exactly one reason, what stands before it, and about when it starts.
//!
//! Invariant: the reason is the outermost thing that would have to change for the job to run. First its own conditions (other
//! jobs, its time), then what an operator stopped, then whether anybody serves the queue, then its tenant's limits, then its
//! tenant's other jobs. When none of these holds, its turn is coming.
//! Next: [`estimate`] for the time.

mod estimate;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Index, IndexState, JobState, Priority, cascade,
    index::{Place, Standing},
};
use crate::{db::TenantTx, store::webhook_endpoints::OPENS_AFTER, webhooks::DELIVERY_KIND};

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WaitReason)]
pub enum Reason {
    /// Other jobs must be final first.
    WaitingOnJobs,
    /// A job that it waits for failed or was cancelled, and so it is about to be cancelled too.
    BeingCancelled,
    /// It sends a message to an endpoint that fails, which another message tries first.
    EndpointFailing,
    /// It failed, and its next attempt is not due.
    BackingOff,
    /// Its `run_at` has not come.
    NotDue,
    /// An operator paused the queue.
    QueuePaused,
    /// An operator paused the tenant.
    TenantPaused,
    /// No worker serves the queue.
    NoWorker,
    /// As many of the tenant's jobs run as may.
    TenantCap,
    /// As many of the tenant's jobs started as may for now.
    TenantRate,
    /// Jobs of the same tenant come first.
    AheadInOwnLane,
    /// It is the tenant's next; it starts when a slot comes round to the tenant.
    Dispatching,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The job.
    pub id: Uuid,
    /// Its state, as the job itself shows it.
    pub state: &'static str,
    /// Why it waits; nothing for a job that runs or is final.
    pub reason: Option<Reason>,
    /// The same for people.
    pub detail: String,
    /// Its place among its tenant's jobs that could start, from 1.
    pub position: Option<u64>,
    /// How many of them come before it.
    pub ahead_of_it: Option<u64>,
    /// From when on it may run.
    pub run_at: DateTime<Utc>,
    /// About when it starts, if things go on as they are; nothing if that depends on somebody's doing.
    pub estimated_start_at: Option<DateTime<Utc>>,
}

/// What the ledger says of a job.
struct Row {
    id: Uuid,
    queue: String,
    state: JobState,
    priority: i16,
    failures: i16,
    waits_for: i16,
    run_at: DateTime<Utc>,
    now: DateTime<Utc>,
    /// Whether it sends a message to an endpoint that is tried by one message at a time.
    endpoint_failing: bool,
}

/// Why the job of this id waits, if it is the tenant's. While Redis is away, as far as the ledger knows.
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
        return Ok(Some(row.without_reason(row.state.as_str(), "It is final; nothing more will happen by itself.")));
    }
    if row.waits_for > 0 && cascade::will_cancel(transaction, id).await? {
        return Ok(Some(row.being_cancelled()));
    }
    let queue = row.queue.parse().expect("the ledger holds valid queue names");
    let priority = Priority::from_ledger(row.priority);
    let standing = match index.standing(&queue, id, transaction.tenant(), priority).await {
        Ok(standing) => Some(standing).filter(|standing| standing.state == IndexState::Ready),
        Err(error) => {
            tracing::debug!(%queue, %error, "the index does not say where a job stands");
            None
        }
    };
    Ok(Some(row.explain(standing.as_ref())))
}

impl Row {
    fn explain(&self, standing: Option<&Standing>) -> Explanation {
        if standing.is_some_and(|standing| standing.place == Place::Held) {
            return self.without_reason("running", "A worker runs it, or is about to.");
        }
        let (reason, detail) = self.own_reason().or_else(|| Some(standing?.reason(&self.queue))).unwrap_or_else(|| {
            (
                Reason::Dispatching,
                "It is committed; the index is away or being built, and brings it as soon as it is back.".to_owned(),
            )
        });
        let ahead_of_it = standing.and_then(|standing| match standing.place {
            Place::Lane(ahead) => Some(ahead),
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
            estimated_start_at: estimate::start(reason, self.run_at, self.now, ahead_of_it, standing),
        }
    }

    fn is_due(&self) -> bool {
        self.run_at <= self.now && self.waits_for == 0
    }

    /// What the job itself waits for.
    fn own_reason(&self) -> Option<(Reason, String)> {
        if self.waits_for > 0 {
            let detail = format!("{} of the jobs that it waits for are not final yet.", self.waits_for);
            return Some((Reason::WaitingOnJobs, detail));
        }
        if self.run_at <= self.now {
            return None;
        }
        if self.endpoint_failing {
            let detail = "Its endpoint fails and is tried by one message at a time; this one waits until run_at.";
            return Some((Reason::EndpointFailing, detail.to_owned()));
        }
        Some(if self.state == JobState::Retryable {
            (Reason::BackingOff, format!("It failed {} times and is tried again at run_at.", self.failures))
        } else {
            (Reason::NotDue, "It was asked for at a later time, run_at.".to_owned())
        })
    }

    fn being_cancelled(&self) -> Explanation {
        let detail =
            "A job that it waits for failed or was cancelled; it does not run any more and is cancelled in its turn.";
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

impl Standing {
    /// What holds a job that is due.
    fn reason(&self, queue: &str) -> (Reason, String) {
        let tokens = self.limits.rate.zip(self.tokens);
        match (self.limits.max_running, tokens, self.place) {
            _ if self.queue_paused => (Reason::QueuePaused, format!("An operator paused the queue {queue}.")),
            _ if self.limits.paused => {
                (Reason::TenantPaused, format!("An operator paused your jobs in the queue {queue}."))
            }
            _ if self.workers == 0 => (Reason::NoWorker, format!("No worker serves the queue {queue} at the moment.")),
            (Some(cap), ..) if i64::from(self.running) >= i64::from(cap) => {
                (Reason::TenantCap, format!("{} of your jobs run in the queue {queue}, and {cap} may.", self.running))
            }
            (_, Some((rate, tokens)), _) if tokens < 1.0 => (
                Reason::TenantRate,
                format!("{} of your jobs may start in a second in the queue {queue}.", rate.per_second),
            ),
            (.., Place::Lane(ahead)) if ahead > 0 => {
                (Reason::AheadInOwnLane, format!("{ahead} of your jobs in the queue {queue} come first."))
            }
            (.., Place::Lane(_)) => {
                let others = self.other_tenants;
                (
                    Reason::Dispatching,
                    format!("It is your next; slots of the queue {queue} go round between you and {others} others."),
                )
            }
            _ => (Reason::Dispatching, "It is committed and on its way into the index.".to_owned()),
        }
    }
}
