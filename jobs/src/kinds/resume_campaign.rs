//! `resume_campaign`: waits until the relay is back, then resumes a campaign that was paused
//! because of it.
//!
//! The job is created in the transaction that pauses the campaign. Running twice is harmless: it
//! resumes only the pause that it was created for, and resuming changes the campaign's generation.

use std::time::Duration;

use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    ids,
    queue::{NewJob, enqueue::Producer},
    store::campaign_pauses,
};
use uuid::Uuid;

use super::send_campaign::SendCampaign;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success, new_job},
};

/// Resumes a campaign that was paused because the mail server was unavailable.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeCampaign {
    /// The campaign.
    pub campaign_id: Uuid,
    /// The generation that was paused; in a later generation this job has no effect.
    pub generation: i32,
}

impl Job for ResumeCampaign {
    const KIND: &'static str = "resume_campaign";
    const DESCRIPTION: &'static str = "Resumes a campaign that was paused because the mail server was unavailable.";
    const QUEUE: &'static str = "campaigns";
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::CampaignsSend);

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        let mut transaction = context.begin().await?;
        if !campaign_pauses::waits_for_relay(&mut transaction, self.campaign_id, self.generation).await? {
            return Ok(Success::Cancel("the campaign no longer waits for the mail server".into()));
        }
        drop(transaction);
        let mailer = &context.environment().mailer;
        if mailer.probe().await.is_err() {
            return Ok(Success::Snooze(jittered(mailer.relay_probe())));
        }
        let mut transaction = context.begin().await?;
        let id = ids::new_id(&context.environment().clock);
        let resumed =
            campaign_pauses::resume_after_relay(&mut transaction, self.campaign_id, self.generation, id).await?;
        let Some(generation) = resumed else {
            return Ok(Success::Cancel("the campaign no longer waits for the mail server".into()));
        };
        let sending = SendCampaign { campaign_id: self.campaign_id, generation };
        let jobs = [NewJob { id, ..new_job(&context.environment().clock, context.tenant(), &sending) }];
        Producer::enqueue_in(&mut transaction, &jobs).await?;
        context.commit_and_announce(transaction, &jobs).await?;
        Ok(Success::Done)
    }
}

/// Adds jitter, so that campaigns paused together do not all check the relay at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
