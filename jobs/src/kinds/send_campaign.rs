//! `send_campaign`: creates one job for each pending recipient of a campaign, then waits until all
//! of them are done.
//!
//! Runs when a campaign is started or resumed, or when its time has come. Running twice is
//! harmless: a page of recipients becomes `queued` in the transaction that inserts their jobs, so
//! the second run finds only recipients without a job. A run of an earlier start (the campaign was
//! paused and resumed since) finds another generation and ends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    authz::Permission,
    queue::{NewJob, enqueue::Producer, ledger::JOBS_PER_TRANSACTION},
    store::{campaigns, recipients},
};
use uuid::Uuid;

use super::send_campaign_email::SendCampaignEmail;
use crate::{
    context::JobContext,
    job::{Job, JobError, Success, new_job},
};

/// Interval between checks whether all recipients are done.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Fans a campaign out into one job per recipient and completes it when all of them are done.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendCampaign {
    /// The campaign.
    pub campaign_id: Uuid,
    /// The campaign's generation; in a later generation this job has no effect.
    pub generation: i32,
}

impl Job for SendCampaign {
    const KIND: &'static str = "send_campaign";
    const DESCRIPTION: &'static str =
        "Fans a campaign out into one job per recipient and completes it when all of them are done.";
    const QUEUE: &'static str = "campaigns";
    const INTERNAL: bool = true;
    const CONTROL: Option<Permission> = Some(Permission::CampaignsSend);

    async fn run(self, context: &JobContext) -> Result<Success, JobError> {
        loop {
            match self.queue_page(context).await? {
                Page::Void => return Ok(Success::Cancel("the campaign was paused, cancelled or started again".into())),
                Page::Queued => {}
                Page::Empty => break,
            }
        }
        let mut transaction = context.begin().await?;
        if recipients::settle_orphans(&mut transaction, self.campaign_id).await? > 0 {
            transaction.commit().await?;
            return Ok(Success::Snooze(LOOK_AGAIN));
        }
        campaigns::complete(&mut transaction, self.campaign_id).await?;
        transaction.commit().await?;
        Ok(Success::Done)
    }
}

/// Result of processing the next page.
enum Page {
    /// The campaign has a later generation, or is not being sent.
    Void,
    /// Jobs were created for the page's recipients.
    Queued,
    /// No recipient is pending.
    Empty,
}

impl SendCampaign {
    async fn queue_page(&self, context: &JobContext) -> Result<Page, sqlx::Error> {
        let mut transaction = context.begin().await?;
        if !campaigns::begin_sending(&mut transaction, self.campaign_id, self.generation).await? {
            return Ok(Page::Void);
        }
        let pending = recipients::pending(&mut transaction, self.campaign_id, JOBS_PER_TRANSACTION).await?;
        if pending.is_empty() {
            transaction.commit().await?;
            return Ok(Page::Empty);
        }
        let campaign_id = self.campaign_id;
        let mails = pending.iter().map(|&recipient_id| SendCampaignEmail { campaign_id, recipient_id });
        let jobs: Vec<NewJob> =
            mails.map(|mail| new_job(&context.environment().clock, context.tenant(), &mail)).collect();
        let queued: Vec<(Uuid, Uuid)> = pending.into_iter().zip(jobs.iter().map(|job| job.id)).collect();
        recipients::queue(&mut transaction, &queued).await?;
        Producer::enqueue_in(&mut transaction, &jobs).await?;
        context.commit_and_announce(transaction, &jobs).await?;
        Ok(Page::Queued)
    }
}
