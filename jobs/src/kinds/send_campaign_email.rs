//! `send_campaign_email`: sends one mail of a campaign to one recipient.
//!
//! Running twice is harmless: the recipient's row records whether the mail was sent; between the
//! relay's 250 and the commit of that row, the effect is recorded in the index
//! ([`JobContext::make_effect`]); and if even that is lost, the repeat carries the same Message-ID.
//! Final failures are handled here, failures that are retried in [`postpone`].

mod postpone;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    ids,
    queue::complete::effects::Effect,
    store::{
        campaign_pauses,
        recipients::{self, Addressee},
        suppressions::{self, NewSuppression, SuppressionReason},
    },
};
use uuid::Uuid;

use crate::{
    backoff,
    context::JobContext,
    environment::Environment,
    job::{Job, JobError, Success},
    ports::mail::{MailError, OutgoingMail},
    unsubscribe::Unsubscriber,
};

/// A repeat of a mail that may have been accepted has the same date, up to this age: receivers
/// refuse dates of a week ago, and the relay may take days to deliver.
const MAX_DATE_AGE: TimeDelta = TimeDelta::days(3);

/// Sends one mail of a campaign to one recipient.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendCampaignEmail {
    /// The campaign.
    pub campaign_id: Uuid,
    /// The recipient.
    pub recipient_id: Uuid,
}

impl Job for SendCampaignEmail {
    const KIND: &'static str = "send_campaign_email";
    const DESCRIPTION: &'static str = "Sends one mail of a campaign to one recipient.";
    const QUEUE: &'static str = "email";
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::CampaignsSend);
    /// Retries over five days; [`postpone`] bounds them by time.
    const MAX_ATTEMPTS: i16 = 140;

    fn retry_delay(failures: u32) -> Duration {
        backoff::exponential(failures, Duration::from_secs(1), Duration::from_hours(2))
    }

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        let Some(addressee) = recipients::addressee(&mut transaction, self.recipient_id).await? else {
            return Ok(Success::Cancel("the recipient no longer exists".into()));
        };
        transaction.commit().await?;
        match next_step(&addressee) {
            Step::Send => Box::pin(self.compile_and_send(context, &addressee)).await,
            Step::Nothing => Ok(Success::Done),
            Step::Leave { state, reason } => {
                self.finish(context, state, Some(reason)).await?;
                Ok(Success::Cancel(reason.into()))
            }
        }
    }
}

/// The action for a recipient in its current state.
#[derive(Clone, Copy)]
enum Step {
    Send,
    /// The mail is already done.
    Nothing,
    /// No mail is sent, for this reason.
    Leave {
        state: &'static str,
        reason: &'static str,
    },
}

fn next_step(addressee: &Addressee) -> Step {
    match (addressee.state.as_str(), addressee.campaign_state.as_str()) {
        // A mail that was given up is attempted again if its job is redriven.
        ("queued" | "failed", "sending" | "completed") if addressee.suppressed => {
            Step::Leave { state: "suppressed", reason: "the address is on the suppression list" }
        }
        ("queued" | "failed", "sending" | "completed") => Step::Send,
        // Resuming the campaign creates a new job for the recipient.
        ("queued", "paused") => Step::Leave { state: "pending", reason: "the campaign is paused" },
        ("queued", _) => Step::Leave { state: "cancelled", reason: "the campaign was cancelled" },
        _ => Step::Nothing,
    }
}

impl SendCampaignEmail {
    async fn compile_and_send(&self, context: &JobContext, addressee: &Addressee) -> Result<Success, JobError> {
        let effect = format!("mail:{}", self.recipient_id);
        let begun = match context.begin_effect(&effect).await {
            Effect::Happened => return self.sent(context).await,
            Effect::Begun(at) => at,
        };
        let now = context.environment().clock.now();
        let date = addressee.handed_over_at.filter(|date| now - *date < MAX_DATE_AGE).unwrap_or(begun);
        let unsubscriber = Unsubscriber { tenant: context.tenant(), recipient: self.recipient_id };
        let Environment { campaign_mails: mails, tenants, compute, unsubscribe_links, .. } = context.environment();
        let rendered = match mails.of(tenants, compute, unsubscriber.tenant, self.campaign_id).await? {
            None => return Ok(Success::Cancel("the campaign no longer exists".into())),
            Some(Err(error)) => Err(error),
            Some(Ok(mail)) => mail
                .write(compute, unsubscribe_links, unsubscriber, addressee, date)
                .await
                .map_err(anyhow::Error::from)?,
        };
        match rendered {
            Ok(outgoing) => self.send(context, effect, outgoing, addressee).await,
            Err(error) => self.fail(context, JobError::Final(error.to_string())).await,
        }
    }

    async fn send(
        &self,
        context: &JobContext,
        effect: String,
        outgoing: OutgoingMail,
        addressee: &Addressee,
    ) -> Result<Success, JobError> {
        let date = outgoing.date;
        let (mailer, tenant) = (context.environment().mailer.clone(), context.tenant());
        let sending = Box::pin(async move { mailer.send(tenant, &outgoing).await });
        match context.make_effect(effect.clone(), sending).await {
            Ok(_) => self.sent(context).await,
            Err(error) => {
                if !error.after_data() {
                    context.forget_effect(&effect).await;
                }
                Box::pin(self.not_sent(context, addressee, date, error)).await
            }
        }
    }

    async fn not_sent(
        &self,
        context: &JobContext,
        addressee: &Addressee,
        date: DateTime<Utc>,
        error: MailError,
    ) -> Result<Success, JobError> {
        match error {
            MailError::Rejected { mailbox_dead: true, .. } => {
                self.reject(context, addressee, &error).await?;
                Ok(Success::Done)
            }
            MailError::Rejected { .. } => {
                self.finish(context, "failed", Some(&error.to_string())).await?;
                Ok(Success::Done)
            }
            MailError::Invalid { .. } => self.fail(context, JobError::Final(error.to_string())).await,
            MailError::Transient { .. } => self.postpone(context, addressee, date, error).await,
        }
    }

    async fn sent(&self, context: &JobContext) -> Result<Success, JobError> {
        self.finish(context, "sent", None).await?;
        Ok(Success::Done)
    }

    /// The mailbox does not exist: marks the recipient as rejected and suppresses the address.
    async fn reject(&self, context: &JobContext, addressee: &Addressee, error: &MailError) -> Result<(), sqlx::Error> {
        let reason = error.to_string();
        let mut transaction = context.begin().await?;
        recipients::finish(&mut transaction, self.recipient_id, "rejected", Some(&reason)).await?;
        let entry = NewSuppression {
            id: ids::new_id(&context.environment().clock),
            email_key: &addressee.email_key,
            reason: SuppressionReason::Rejected,
            source: "relay",
            detail: Some(&reason),
            stage: error.stage().map(|stage| stage.to_string()),
            code: error.codes(),
            campaign: Some(self.campaign_id),
        };
        suppressions::add(&mut transaction, &entry).await?;
        transaction.commit().await
    }

    async fn fail(&self, context: &JobContext, error: JobError) -> Result<Success, JobError> {
        self.finish(context, "failed", Some(&error.to_string())).await?;
        Err(error)
    }

    /// Records the outcome, and retries for as long as the job may run: once a mail was sent, only
    /// this row prevents a second one.
    async fn finish(&self, context: &JobContext, state: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
        loop {
            match self.finish_once(context, state, reason).await {
                Err(error) if shared::db::is_unavailable(&error) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                other => return other,
            }
        }
    }

    async fn finish_once(&self, context: &JobContext, state: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
        let mut transaction = context.begin().await?;
        recipients::finish(&mut transaction, self.recipient_id, state, reason).await?;
        if state == "sent" {
            campaign_pauses::note_acceptance(&mut transaction, self.campaign_id).await?;
        }
        transaction.commit().await
    }
}
