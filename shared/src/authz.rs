//! What a principal may do: a closed list of `resource:action`.
//!
//! Invariant: an API key's scopes are a set of these; a text that is none of them gives no right.

use std::str::FromStr;

/// One permission.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::EnumIter, strum::IntoStaticStr,
)]
pub enum Permission {
    /// See jobs and kinds.
    #[strum(serialize = "jobs:read")]
    JobsRead,
    /// Submit jobs.
    #[strum(serialize = "jobs:create")]
    JobsCreate,
    /// Cancel and redrive jobs.
    #[strum(serialize = "jobs:control")]
    JobsControl,
    /// See campaigns and their progress.
    #[strum(serialize = "campaigns:read")]
    CampaignsRead,
    /// Make campaigns and import their leads.
    #[strum(serialize = "campaigns:write")]
    CampaignsWrite,
    /// Start, pause, resume and cancel the sending of campaigns.
    #[strum(serialize = "campaigns:send")]
    CampaignsSend,
    /// See webhook endpoints and their deliveries.
    #[strum(serialize = "webhooks:read")]
    WebhooksRead,
    /// Make, change and test webhook endpoints, and redeliver.
    #[strum(serialize = "webhooks:write")]
    WebhooksWrite,
}

impl Permission {
    /// All of them: what a tenant's first key may do.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The text that stands for it in scopes.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The permission that a scope stands for.
    pub fn parse(scope: &str) -> Option<Self> {
        Self::from_str(scope).ok()
    }
}
