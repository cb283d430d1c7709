//! Permissions of a principal: a closed list of `resource:action` pairs.
//!
//! Invariant: an API key's scopes are a set of these permissions; a scope that is not in the list
//! grants nothing.

use std::str::FromStr;

/// One permission.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::EnumIter, strum::IntoStaticStr,
)]
pub enum Permission {
    /// Read jobs and kinds.
    #[strum(serialize = "jobs:read")]
    JobsRead,
    /// Submit jobs.
    #[strum(serialize = "jobs:create")]
    JobsCreate,
    /// Cancel and redrive jobs.
    #[strum(serialize = "jobs:control")]
    JobsControl,
    /// Read campaigns and their progress.
    #[strum(serialize = "campaigns:read")]
    CampaignsRead,
    /// Create campaigns and import their leads.
    #[strum(serialize = "campaigns:write")]
    CampaignsWrite,
    /// Start, pause, resume and cancel the sending of campaigns.
    #[strum(serialize = "campaigns:send")]
    CampaignsSend,
    /// Read webhook endpoints and their deliveries.
    #[strum(serialize = "webhooks:read")]
    WebhooksRead,
    /// Create, change and test webhook endpoints, and redeliver.
    #[strum(serialize = "webhooks:write")]
    WebhooksWrite,
}

impl Permission {
    /// All permissions. A tenant's first key holds all of them.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The scope text of this permission.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The permission that a scope names.
    pub fn parse(scope: &str) -> Option<Self> {
        Self::from_str(scope).ok()
    }
}
