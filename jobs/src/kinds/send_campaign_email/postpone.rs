//! A mail that was not accepted but may be later: which side is responsible, and when to retry.
//!
//! Invariant: problems of the relay or of Rota never count against a recipient. Other failures are
//! bounded by time, so that an outage of hours at the recipient's side costs no mail (RFC 5321
//! §4.5.4.1). A mail that may have been accepted [`MAX_UNANSWERED`] times is repeated only after a
//! person resumed its campaign.

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    queue::enqueue::Producer,
    store::{
        campaign_pauses,
        recipient_attempts::{self, Attempt},
        recipients::{self, Addressee},
    },
};

use super::SendCampaignEmail;
use crate::{
    context::JobContext,
    job::{JobError, Success, new_job},
    kinds::resume_campaign::ResumeCampaign,
    ports::mail::{Blame, MailError},
};

/// For recipients whose side requests a later retry or does not respond.
const PATIENCE_WITH_RECIPIENTS: TimeDelta = TimeDelta::days(5);
/// For refusals that concern the sender; the operator of a paused campaign reacts within a day.
const PATIENCE_WITH_REFUSALS: TimeDelta = TimeDelta::days(1);
/// Maximum number of attempts without a final reply; each may have delivered the mail. Then the
/// mail is given up if the relay accepts others of the campaign, otherwise the campaign is paused.
const MAX_UNANSWERED: i16 = 3;
/// Number of refused recipients, less the accepted mails, at which the campaign is paused.
const MANY: i32 = 10;

impl SendCampaignEmail {
    /// Records a failure that a retry may resolve, and decides about the retry. `date` is the
    /// mail's date.
    pub(super) async fn postpone(
        &self,
        context: &JobContext,
        addressee: &Addressee,
        date: DateTime<Utc>,
        error: MailError,
    ) -> Result<Success, JobError> {
        match error.blame() {
            Some(Blame::Relay) if context.environment().mailer.is_relay_given_up() => {
                self.wait_for_relay(context, &error).await
            }
            Some(Blame::Relay | Blame::Busy) => Ok(Success::Snooze(error.soon())),
            _ if self.is_hopeless(context, addressee, date, &error).await? => {
                self.fail(context, JobError::Final(error.to_string())).await
            }
            _ => self.note(context, addressee, date, error).await,
        }
    }

    async fn is_hopeless(
        &self,
        context: &JobContext,
        addressee: &Addressee,
        date: DateTime<Utc>,
        error: &MailError,
    ) -> Result<bool, sqlx::Error> {
        if is_overdue(context, addressee, error) {
            return Ok(true);
        }
        if !is_repeated_enough(addressee, error) {
            return Ok(false);
        }
        // A mail of a completed campaign, whose job was redriven, has no campaign to pause.
        if addressee.campaign_state != "sending" {
            return Ok(true);
        }
        let mut transaction = context.begin().await?;
        recipients::any_sent_since(&mut transaction, self.campaign_id, date).await
    }

    /// Counts the failure against the mail, and a new refusal of the sender against the campaign.
    async fn note(
        &self,
        context: &JobContext,
        addressee: &Addressee,
        date: DateTime<Utc>,
        error: MailError,
    ) -> Result<Success, JobError> {
        // A relay that restarts loses the replies to all mails in flight; to lose that of a repeat
        // as well is a fault.
        let is_first_loss = error.after_data() && addressee.unanswered == 0;
        let refusal = (error.blame() == Some(Blame::Sender) && !is_first_loss).then(|| error.summary());
        let attempt = Attempt {
            handed_over_at: error.after_data().then_some(date),
            generation: addressee.generation,
            refusal: refusal.as_deref(),
        };
        let mut transaction = context.begin().await?;
        recipient_attempts::note(&mut transaction, self.recipient_id, attempt).await?;
        let mut paused = false;
        let is_repeated_enough = is_repeated_enough(addressee, &error);
        // A recipient counts once for each start of the campaign. A mail that was repeated enough
        // pauses the campaign by itself: the relay accepts none of its mails.
        if let Some(refusal) = refusal.as_deref().filter(|_| is_repeated_enough || addressee.refusal.is_none()) {
            let (campaign, generation) = (self.campaign_id, addressee.generation);
            let many = if is_repeated_enough { 1 } else { MANY };
            paused = campaign_pauses::note_refusal(&mut transaction, campaign, generation, refusal, many).await?;
        }
        transaction.commit().await?;
        if paused {
            tracing::warn!(campaign = %self.campaign_id, refusal, "a campaign is paused: the relay refuses many of its mails, or does not answer them");
        }
        Err(JobError::Retry(error.into()))
    }

    /// Pauses the campaign until the relay is back; resuming it creates a new job for this
    /// recipient.
    async fn wait_for_relay(&self, context: &JobContext, error: &MailError) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        let summary = error.summary();
        let paused = campaign_pauses::pause_for_relay(&mut transaction, self.campaign_id, &summary).await?;
        // Already paused or cancelled: the next run decides by the campaign's state.
        let Some(generation) = paused else { return Ok(Success::Snooze(error.soon())) };
        let resuming = ResumeCampaign { campaign_id: self.campaign_id, generation };
        let jobs = [new_job(&context.environment().clock, context.tenant(), &resuming)];
        Producer::enqueue_in(&mut transaction, &jobs).await?;
        tracing::warn!(campaign = %self.campaign_id, relay = summary, "a campaign is paused until the relay is back");
        let reason = "the mail server is unavailable, the campaign is paused until it is back";
        recipients::finish(&mut transaction, self.recipient_id, "pending", Some(reason)).await?;
        context.commit_and_announce(transaction, &jobs).await?;
        Ok(Success::Cancel(reason.into()))
    }
}

fn is_overdue(context: &JobContext, addressee: &Addressee, error: &MailError) -> bool {
    let patience = match error.blame() {
        Some(Blame::Sender) => PATIENCE_WITH_REFUSALS,
        _ => PATIENCE_WITH_RECIPIENTS,
    };
    let now = context.environment().clock.now();
    context.is_last_attempt() || addressee.failing_since.is_some_and(|since| now - since >= patience)
}

fn is_repeated_enough(addressee: &Addressee, error: &MailError) -> bool {
    error.after_data() && addressee.unanswered + 1 >= MAX_UNANSWERED
}
