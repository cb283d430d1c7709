//! The services that a process provides to all kinds.

use shared::{
    clock::Clock,
    compute::ComputePool,
    db::TenantDb,
    queue::{Index, enqueue::Producer},
    store::webhook_secrets::SecretReader,
};

use crate::{
    account_mail::AccountMails,
    campaign_mail::CampaignMails,
    ports::{mail::Mailer, outbound::Outbound},
    unsubscribe::UnsubscribeLinks,
};

/// Connections and services for kinds; one instance per process.
pub struct Environment {
    /// Begins transactions as the job's tenant.
    pub tenants: TenantDb,
    /// Enqueues further jobs.
    pub producer: Producer,
    /// Records effects and progress.
    pub index: Index,
    /// Sends HTTP requests to URLs that tenants choose. Kinds must not use another client: without
    /// this guard, requests could reach private networks.
    pub outbound: Outbound,
    /// Reads the signing secrets of webhook endpoints.
    pub webhook_secrets: SecretReader,
    /// Sends mails.
    pub mailer: Mailer,
    /// Compiles and renders templates.
    pub compute: ComputePool,
    /// Compiled campaigns.
    pub campaign_mails: CampaignMails,
    /// Creates unsubscribe links.
    pub unsubscribe_links: UnsubscribeLinks,
    /// Writes mails about accounts.
    pub account_mails: AccountMails,
    /// The source of time.
    pub clock: Clock,
}
