//! Finds campaigns that are scheduled or being sent although no job sends them any more, and
//! settles them.
//!
//! Invariant: no campaign stays scheduled or sending without a job. If its job was cancelled or
//! discarded, the campaign is paused with the reason, for a person to resume: a job that kills its
//! workers would do so again. If the row of the job is gone, the campaign is restarted from its
//! current position; recipients that have their mail, or a job of their own, are skipped.

use std::time::Duration;

use jobs::{
    job::{Job as _, new_job},
    kinds::send_campaign::SendCampaign,
};
use shared::{
    clock::Clock,
    db::{SystemDb, TenantDb},
    ids,
    queue::{JobState, NewJob, enqueue::Producer},
    store::{
        campaigns,
        campaigns_under_way::{self as under_way, Ended, SendingJobs, Stranded},
    },
};

use crate::{elector::Leading, maintainer::Service};

const INTERVAL: Duration = Duration::from_secs(5);
/// Campaigns settled per run.
const AT_ONCE: i64 = 100;
const JOBS: SendingJobs = SendingJobs { kind: SendCampaign::KIND, queue: SendCampaign::QUEUE };

/// Looks for campaigns without a job.
pub struct CampaignKeeper {
    system: SystemDb,
    tenants: TenantDb,
    clock: Clock,
}

/// What a run settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CampaignReport {
    /// Paused campaigns.
    pub paused: u64,
    /// Campaigns that got a new job.
    pub resumed: u64,
}

impl CampaignKeeper {
    /// A keeper over the ledger.
    pub const fn new(system: SystemDb, tenants: TenantDb, clock: Clock) -> Self {
        Self { system, tenants, clock }
    }

    async fn settle(&self, campaign: Stranded, report: &mut CampaignReport) -> anyhow::Result<()> {
        let mut transaction = self.tenants.begin(campaign.tenant).await?;
        match under_way::lock(&mut transaction, campaign.id, JOBS).await? {
            Ended::With(job, state @ (JobState::Cancelled | JobState::Discarded)) => {
                let reason = format!("job {job} was {}; resume the campaign to continue", state.as_str());
                under_way::pause(&mut transaction, campaign.id, &reason).await?;
                report.paused += 1;
                tracing::info!(campaign_id = %campaign.id, job_id = %job, state = state.as_str(), "paused a campaign whose job was cancelled or discarded");
            }
            Ended::With(..) | Ended::Lost => {
                let Some(present) = campaigns::find(&mut transaction, campaign.id).await? else { return Ok(()) };
                let (job, from) = (ids::new_id(&self.clock), [present.state.as_str()]);
                let generation = campaigns::start(&mut transaction, campaign.id, &from, present.send_at, job).await?;
                let Some(generation) = generation else { return Ok(()) };
                let send = SendCampaign { campaign_id: campaign.id, generation };
                let new = NewJob {
                    id: job,
                    run_at: present.send_at.filter(|send_at| *send_at > self.clock.now()),
                    ..new_job(&self.clock, campaign.tenant, &send)
                };
                // The sweep pushes the job to the index.
                Producer::enqueue_in(&mut transaction, &[new]).await?;
                report.resumed += 1;
                tracing::warn!(campaign_id = %campaign.id, job_id = %job, "restarted a campaign whose job is gone");
            }
            Ended::Not => return Ok(()),
        }
        Ok(transaction.commit().await?)
    }
}

impl Service for CampaignKeeper {
    const NAME: &'static str = "campaign_keeper";
    type Report = CampaignReport;

    fn interval(&self) -> Duration {
        INTERVAL
    }

    async fn run_once(&mut self, _leading: &Leading) -> anyhow::Result<CampaignReport> {
        let (mut report, mut outcome) = (CampaignReport::default(), Ok(()));
        for campaign in under_way::stranded(&self.system, JOBS, AT_ONCE).await? {
            // An error in one tenant's campaign does not stop the others.
            outcome = self.settle(campaign, &mut report).await.and(outcome);
        }
        outcome?;
        Ok(report)
    }
}
