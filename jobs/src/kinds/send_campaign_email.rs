//! `send_campaign_email`: writes one mail of a campaign to one recipient.
//!
//! Running twice is harmless: the recipient's row says whether the mail went out; between the relay's 250 and that row's commit the
//! effect is noted in the index ([`JobContext::once`]); and if even that is lost, the repeat carries the same Message-ID.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    store::{
        recipients::{self, Addressee},
        suppressions::{self, SuppressionReason},
    },
};
use uuid::Uuid;

use crate::{
    context::{JobContext, Once},
    job::{Job, JobError, Success},
    ports::mail::{MailError, OutgoingMail},
};

/// Writes one mail of a campaign to one recipient.
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
    const DESCRIPTION: &'static str = "Writes one mail of a campaign to one recipient.";
    const QUEUE: &'static str = "email";
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::CampaignsSend);
    const MAX_ATTEMPTS: i16 = 12;

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        let Some(addressee) = recipients::addressee(&mut transaction, self.recipient_id).await? else {
            return Ok(Success::Cancel("the recipient is gone".into()));
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

/// What is to be done with a recipient as it stands.
#[derive(Clone, Copy)]
enum Step {
    Send,
    /// Done already.
    Nothing,
    /// No mail, for this reason.
    Leave {
        state: &'static str,
        reason: &'static str,
    },
}

fn next_step(addressee: &Addressee) -> Step {
    match (addressee.state.as_str(), addressee.campaign_state.as_str()) {
        // A mail that was given up is tried again if somebody redrives its job.
        ("queued" | "failed", "sending" | "completed") if addressee.suppressed => {
            Step::Leave { state: "suppressed", reason: "the address is on the suppression list" }
        }
        ("queued" | "failed", "sending" | "completed") => Step::Send,
        // Whoever resumes the campaign gives the recipient a new job.
        ("queued", "paused") => Step::Leave { state: "pending", reason: "the campaign is paused" },
        ("queued", _) => Step::Leave { state: "cancelled", reason: "the campaign was cancelled" },
        _ => Step::Nothing,
    }
}

impl SendCampaignEmail {
    async fn compile_and_send(&self, context: &JobContext, addressee: &Addressee) -> Result<Success, JobError> {
        let rendered = match context.environment().campaign_mails.of(context, self.campaign_id).await? {
            None => return Ok(Success::Cancel("the campaign is gone".into())),
            Some(Err(error)) => Err(error),
            Some(Ok(mail)) => mail.write(context, self.recipient_id, addressee).await.map_err(anyhow::Error::from)?,
        };
        match rendered {
            Ok(outgoing) => self.send(context, outgoing, addressee).await,
            Err(error) => self.give_up(context, JobError::Final(error.to_string())).await,
        }
    }

    async fn send(
        &self,
        context: &JobContext,
        outgoing: OutgoingMail,
        addressee: &Addressee,
    ) -> Result<Success, JobError> {
        let effect = format!("mail:{}", self.recipient_id);
        let mailer = context.environment().mailer.clone();
        let sending = Box::pin(async move { mailer.send(&outgoing).await });
        match context.once(effect, sending).await {
            Ok(Once::Now(_) | Once::Earlier) => {
                self.finish(context, "sent", None).await?;
                Ok(Success::Done)
            }
            Err(error @ MailError::Rejected { .. }) => {
                self.reject(context, addressee, &error.to_string()).await?;
                Ok(Success::Done)
            }
            Err(error @ MailError::Invalid { .. }) => self.give_up(context, JobError::Final(error.to_string())).await,
            Err(error) if context.is_last_attempt() => self.give_up(context, JobError::Final(error.to_string())).await,
            Err(error) => Err(JobError::Retry(error.into())),
        }
    }

    /// The address is refused for good: this recipient is done with, and nobody writes there again.
    async fn reject(&self, context: &JobContext, addressee: &Addressee, reason: &str) -> Result<(), sqlx::Error> {
        let mut transaction = context.begin().await?;
        recipients::finish(&mut transaction, self.recipient_id, "rejected", Some(reason)).await?;
        suppressions::add(&mut transaction, &addressee.email_key, SuppressionReason::Rejected, Some(reason)).await?;
        transaction.commit().await
    }

    async fn give_up(&self, context: &JobContext, error: JobError) -> Result<Success, JobError> {
        self.finish(context, "failed", Some(&error.to_string())).await?;
        Err(error)
    }

    /// Notes the end, and tries for as long as the job has time: after a mail went out, this row is what keeps it from going twice.
    async fn finish(&self, context: &JobContext, state: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
        loop {
            match self.finish_once(context, state, reason).await {
                Err(error) if shared::db::is_unavailable(&error) => {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
                other => return other,
            }
        }
    }

    async fn finish_once(&self, context: &JobContext, state: &str, reason: Option<&str>) -> Result<(), sqlx::Error> {
        let mut transaction = context.begin().await?;
        recipients::finish(&mut transaction, self.recipient_id, state, reason).await?;
        transaction.commit().await
    }
}
