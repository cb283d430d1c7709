//! `deliver_webhook`: posts a message to a webhook endpoint of a tenant and records the response.
//!
//! Running twice is harmless for Rota, since the record is one row. The receiver may get the
//! message twice if a worker dies, or the database is unavailable, between the post and the record,
//! or if a response is lost; it can recognise the duplicate by `webhook-id`, which is the same on
//! every attempt.
//!
//! While an endpoint fails, one message at a time is attempted; the others wait, and their attempts
//! are not counted.

use std::time::Duration;

use anyhow::anyhow;
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    store::{
        webhook_deliveries::{self, LoggedAttempt, Outgoing},
        webhook_endpoints::{self, DisabledReason, Turn},
    },
    telemetry::names::{self, label},
    webhooks,
};
use uuid::Uuid;

use crate::{
    context::JobContext,
    job::{Job, JobError, Success},
    ports::outbound::{Answer, OutboundError},
    webhook_signature,
};

/// Delays between the attempts, as the specification recommends: short at first, then over days.
const DELAYS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];
/// An endpoint that has failed for this long without a success is disabled.
const PATIENCE: Duration = Duration::from_hours(5 * 24);
const GONE: u16 = 410;
/// How long one message may occupy a failing endpoint before another one may be attempted: the time
/// of a request, plus a margin.
const TURN: Duration = Duration::from_secs(30);
/// Delay before another attempt to a host that has the maximum number of requests in flight.
const BUSY_HOST_PAUSE: Duration = Duration::from_secs(1);

/// Posts a message to a webhook endpoint of a tenant.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverWebhook {
    /// The delivery.
    pub delivery_id: Uuid,
}

impl Job for DeliverWebhook {
    const KIND: &'static str = webhooks::DELIVERY_KIND;
    const DESCRIPTION: &'static str = "Posts a message to a webhook endpoint of a tenant.";
    const QUEUE: &'static str = webhooks::DELIVERY_QUEUE;
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::WebhooksWrite);
    const MAX_ATTEMPTS: i16 = webhooks::DELIVERY_MAX_ATTEMPTS;
    const TIMEOUT: Duration = Duration::from_mins(1);

    /// Adds a tenth of jitter, so that messages that failed together are not retried together.
    fn retry_delay(failures: u32) -> Duration {
        let last = DELAYS.len() - 1;
        let step = usize::try_from(failures).unwrap_or(last).saturating_sub(1).min(last);
        DELAYS[step].mul_f64(rand::rng().random_range(0.9..=1.1))
    }

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        let outgoing = webhook_deliveries::outgoing(&mut transaction, self.delivery_id).await?;
        let Some(outgoing) = outgoing else { return Ok(Success::Cancel("the endpoint was deleted".into())) };
        if outgoing.delivery_job_id != context.job_id() {
            return Ok(Success::Cancel("a later job delivers this message".into()));
        }
        if outgoing.state == "delivered" {
            return Ok(Success::Done);
        }
        if outgoing.disabled {
            webhook_deliveries::hold(&mut transaction, self.delivery_id).await?;
            transaction.commit().await?;
            count("held");
            return Ok(Success::Cancel("the endpoint is disabled".into()));
        }
        let Some(_permit) = context.environment().outbound.permit(&outgoing.url) else {
            return Ok(Success::Snooze(spread(BUSY_HOST_PAUSE)));
        };
        if let Turn::After(pause) = webhook_endpoints::take_turn(&mut transaction, outgoing.endpoint_id, TURN).await? {
            return Ok(Success::Snooze(spread(pause)));
        }
        transaction.commit().await?;
        Box::pin(self.attempt(context, &outgoing)).await
    }
}

/// Adds up to half of the delay, so that messages that wait together are not retried together.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(1.0..=1.5))
}

/// The result of an attempt.
struct Attempted {
    logged: LoggedAttempt,
    failure: Option<String>,
    gone: bool,
}

impl DeliverWebhook {
    async fn attempt(&self, context: &JobContext, outgoing: &Outgoing) -> Result<Success, JobError> {
        let environment = context.environment();
        let secrets = environment.webhook_secrets.valid(context.tenant(), outgoing.endpoint_id).await?;
        if secrets.is_empty() {
            return Ok(Success::Cancel("the endpoint was deleted".into()));
        }
        let (at, begun) = (environment.clock.now(), tokio::time::Instant::now());
        let id = self.delivery_id.to_string();
        let headers = webhook_signature::headers(&secrets, &id, at.timestamp(), &outgoing.body);
        let result = environment.outbound.post(&outgoing.url, headers, outgoing.body.clone()).await;
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let attempted =
            Attempted::of(result, |status, error, answer| LoggedAttempt { at, status, duration_ms, error, answer });
        self.note(context, outgoing, attempted).await
    }

    async fn note(&self, context: &JobContext, outgoing: &Outgoing, attempted: Attempted) -> Result<Success, JobError> {
        let Attempted { logged, failure, gone } = attempted;
        let mut transaction = context.begin().await?;
        let disabled = match (&failure, gone) {
            (None, _) => {
                webhook_endpoints::note_success(&mut transaction, outgoing.endpoint_id).await?;
                false
            }
            (_, true) => {
                webhook_endpoints::disable(&mut transaction, outgoing.endpoint_id, DisabledReason::Gone).await?
            }
            _ => webhook_endpoints::note_failure(&mut transaction, outgoing.endpoint_id, PATIENCE).await?,
        };
        let (state, outcome) = match &failure {
            None => ("delivered", "delivered"),
            Some(_) if gone || context.is_last_attempt() => ("failed", "given_up"),
            Some(_) if disabled => ("held", "held"),
            Some(_) => ("pending", "failed"),
        };
        webhook_deliveries::record(&mut transaction, self.delivery_id, context.job_id(), &logged, state).await?;
        transaction.commit().await?;
        count(outcome);
        match failure {
            None => Ok(Success::Done),
            Some(failure) if disabled => Ok(Success::Cancel(format!("{failure}; the endpoint is disabled now"))),
            Some(failure) => Err(JobError::Retry(anyhow!(failure))),
        }
    }
}

impl Attempted {
    /// Only a status from 200 to 299 counts as delivered. Redirects are not followed, so they count
    /// as failures.
    fn of(
        result: Result<Answer, OutboundError>,
        log: impl FnOnce(Option<u16>, Option<String>, Option<String>) -> LoggedAttempt,
    ) -> Self {
        match result {
            Ok(Answer { status: status @ 200..=299, beginning }) => {
                Self { logged: log(Some(status), None, Some(beginning)), failure: None, gone: false }
            }
            Ok(Answer { status, beginning }) => {
                let failure = format!("the endpoint answered {status}");
                let logged = log(Some(status), Some(failure.clone()), Some(beginning));
                Self { logged, failure: Some(failure), gone: status == GONE }
            }
            Err(error) => {
                let failure = error.to_string();
                Self { logged: log(None, Some(failure.clone()), None), failure: Some(failure), gone: false }
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(names::WEBHOOK_DELIVERIES_TOTAL, label::OUTCOME => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_delay_before_each_attempt_but_the_first() {
        assert_eq!(DELAYS.len() + 1, usize::try_from(DeliverWebhook::MAX_ATTEMPTS).unwrap());
        for (failures, seconds) in [(1, 5.0), (2, 300.0), (4, 7_200.0), (9, 86_400.0), (1_000, 86_400.0)] {
            for _ in 0..100 {
                let delay = DeliverWebhook::retry_delay(failures).as_secs_f64() / seconds;
                assert!((0.9..=1.1).contains(&delay), "{failures}: {delay}");
            }
        }
        assert!(DELAYS.iter().sum::<Duration>() > Duration::from_hours(3 * 24));
    }
}
