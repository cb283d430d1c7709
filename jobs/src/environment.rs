//! What the process offers to all kinds.

use shared::{
    clock::Clock,
    compute::ComputePool,
    db::TenantDb,
    queue::{Index, producer::Producer},
    store::webhook_secrets::SecretReader,
};

use crate::{
    campaign_mail::CampaignMails,
    ports::{mail::Mailer, outbound::Outbound},
    unsubscribe::UnsubscribeLinks,
};

/// Connections and services that kinds use. One for the process.
pub struct Environment {
    /// Transactions of the job's tenant.
    pub tenants: TenantDb,
    /// Commits follow-up jobs.
    pub producer: Producer,
    /// Notes effects.
    pub index: Index,
    /// Calls out by HTTP, to where tenants say. There is no other way out: a client without its guard would reach our own network.
    pub outbound: Outbound,
    /// What messages to tenants' endpoints are signed with.
    pub webhook_secrets: SecretReader,
    /// Sends mails.
    pub mailer: Mailer,
    /// Where templates are compiled and filled.
    pub compute: ComputePool,
    /// Compiled campaigns.
    pub campaign_mails: CampaignMails,
    /// Makes the links that end all mail.
    pub unsubscribe_links: UnsubscribeLinks,
    /// The time.
    pub clock: Clock,
}
