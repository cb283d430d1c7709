//! The closed list of permissions, `resource:action` pairs.
//!
//! Invariant: names are stored in API keys and in the roles of tenants, so a name is never changed
//! or reused.

use std::str::FromStr;

/// One permission. The scopes of an API key are permissions.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Permission {
    /// Read the own company and its settings.
    #[strum(serialize = "companies:read")]
    CompaniesRead,
    /// Change the own company.
    #[strum(serialize = "companies:write")]
    CompaniesWrite,
    /// Read users.
    #[strum(serialize = "users:read")]
    UsersRead,
    /// Create users, change their names and roles, activate and deactivate them.
    #[strum(serialize = "users:write")]
    UsersWrite,
    /// Delete users.
    #[strum(serialize = "users:delete")]
    UsersDelete,
    /// Read teams and their members.
    #[strum(serialize = "teams:read")]
    TeamsRead,
    /// Create, change and delete teams.
    #[strum(serialize = "teams:write")]
    TeamsWrite,
    /// Read roles and the permissions that they hold.
    #[strum(serialize = "roles:read")]
    RolesRead,
    /// Create, change and delete roles of the company, and grants.
    #[strum(serialize = "roles:write")]
    RolesWrite,
    /// Read API keys, without their secrets.
    #[strum(serialize = "api_keys:read")]
    ApiKeysRead,
    /// Create and rotate API keys.
    #[strum(serialize = "api_keys:create")]
    ApiKeysCreate,
    /// Revoke API keys.
    #[strum(serialize = "api_keys:revoke")]
    ApiKeysRevoke,
    /// Read API clients, without their secrets.
    #[strum(serialize = "api_clients:read")]
    ApiClientsRead,
    /// Create API clients and rotate their secrets.
    #[strum(serialize = "api_clients:create")]
    ApiClientsCreate,
    /// Revoke API clients.
    #[strum(serialize = "api_clients:revoke")]
    ApiClientsRevoke,
    /// Read jobs and kinds.
    #[strum(serialize = "jobs:read")]
    JobsRead,
    /// Submit jobs.
    #[strum(serialize = "jobs:create")]
    JobsCreate,
    /// Cancel and redrive jobs.
    #[strum(serialize = "jobs:control")]
    JobsControl,
    /// Read schedules and their history.
    #[strum(serialize = "schedules:read")]
    SchedulesRead,
    /// Create, change, pause and delete schedules.
    #[strum(serialize = "schedules:write")]
    SchedulesWrite,
    /// Read campaigns and their progress.
    #[strum(serialize = "campaigns:read")]
    CampaignsRead,
    /// Create campaigns and import their leads.
    #[strum(serialize = "campaigns:write")]
    CampaignsWrite,
    /// Start, pause, resume and cancel the sending of campaigns.
    #[strum(serialize = "campaigns:send")]
    CampaignsSend,
    /// Read leads and segments.
    #[strum(serialize = "leads:read")]
    LeadsRead,
    /// Create, change and erase leads and segments.
    #[strum(serialize = "leads:write")]
    LeadsWrite,
    /// Export leads.
    #[strum(serialize = "leads:export")]
    LeadsExport,
    /// Read payments.
    #[strum(serialize = "payments:read")]
    PaymentsRead,
    /// Take payments.
    #[strum(serialize = "payments:create")]
    PaymentsCreate,
    /// Refund payments.
    #[strum(serialize = "payments:refund")]
    PaymentsRefund,
    /// Record payments that were made elsewhere.
    #[strum(serialize = "payments:record")]
    PaymentsRecord,
    /// Read the subscription and its invoices.
    #[strum(serialize = "subscriptions:read")]
    SubscriptionsRead,
    /// Change or cancel the subscription.
    #[strum(serialize = "subscriptions:write")]
    SubscriptionsWrite,
    /// Read transactions.
    #[strum(serialize = "transactions:read")]
    TransactionsRead,
    /// Export transactions.
    #[strum(serialize = "transactions:export")]
    TransactionsExport,
    /// Read analytics.
    #[strum(serialize = "analytics:read")]
    AnalyticsRead,
    /// Read reports.
    #[strum(serialize = "reports:read")]
    ReportsRead,
    /// Create reports.
    #[strum(serialize = "reports:create")]
    ReportsCreate,
    /// Read and download exports.
    #[strum(serialize = "exports:read")]
    ExportsRead,
    /// Create exports.
    #[strum(serialize = "exports:create")]
    ExportsCreate,
    /// Read the audit trail.
    #[strum(serialize = "audit:read")]
    AuditRead,
    /// Export the audit trail and its proofs.
    #[strum(serialize = "audit:export")]
    AuditExport,
    /// Read webhook endpoints and their deliveries.
    #[strum(serialize = "webhooks:read")]
    WebhooksRead,
    /// Create, change and test webhook endpoints, and redeliver.
    #[strum(serialize = "webhooks:write")]
    WebhooksWrite,
    /// Read settings.
    #[strum(serialize = "settings:read")]
    SettingsRead,
    /// Change settings.
    #[strum(serialize = "settings:write")]
    SettingsWrite,
    /// Read quotas and usage.
    #[strum(serialize = "quotas:read")]
    QuotasRead,
    /// Change the thresholds of quotas.
    #[strum(serialize = "quotas:write")]
    QuotasWrite,
    /// Read projects.
    #[strum(serialize = "projects:read")]
    ProjectsRead,
    /// Create, change and delete projects.
    #[strum(serialize = "projects:write")]
    ProjectsWrite,
    /// Read tasks.
    #[strum(serialize = "tasks:read")]
    TasksRead,
    /// Create, change and delete tasks.
    #[strum(serialize = "tasks:write")]
    TasksWrite,
    /// Read documents.
    #[strum(serialize = "documents:read")]
    DocumentsRead,
    /// Create, change and delete documents.
    #[strum(serialize = "documents:write")]
    DocumentsWrite,
    /// Read estates.
    #[strum(serialize = "estates:read")]
    EstatesRead,
    /// Create, change and delete estates.
    #[strum(serialize = "estates:write")]
    EstatesWrite,
    /// Read properties.
    #[strum(serialize = "properties:read")]
    PropertiesRead,
    /// Create, change and delete properties.
    #[strum(serialize = "properties:write")]
    PropertiesWrite,
    /// Read allocations.
    #[strum(serialize = "allocations:read")]
    AllocationsRead,
    /// Create, change and delete allocations.
    #[strum(serialize = "allocations:write")]
    AllocationsWrite,
    /// Read the health of the installation.
    #[strum(serialize = "system:health")]
    SystemHealth,
    /// Read and control the jobs of all tenants.
    #[strum(serialize = "system:jobs")]
    SystemJobs,
    /// Read and control queues.
    #[strum(serialize = "system:queues")]
    SystemQueues,
    /// Read and drain workers.
    #[strum(serialize = "system:workers")]
    SystemWorkers,
    /// Read and change all tenants.
    #[strum(serialize = "system:tenants")]
    SystemTenants,
    /// Change the settings of the installation.
    #[strum(serialize = "system:settings")]
    SystemSettings,
}

impl Permission {
    /// All permissions.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// The permissions that apply within one tenant: all but the operators' own. A tenant's first
    /// key holds them.
    pub fn of_tenants() -> impl Iterator<Item = Self> {
        Self::all().filter(|permission| !permission.is_of_operators())
    }

    /// Whether the permission applies to the whole installation.
    pub fn is_of_operators(self) -> bool {
        self.as_str().starts_with("system:")
    }

    /// Whether what its holders create or change may act by itself, and longer than they may: users,
    /// keys, clients, roles. Whether they hold it is then looked up for each request.
    pub fn gives_access(self) -> bool {
        matches!(self, Self::UsersWrite | Self::ApiKeysCreate | Self::ApiClientsCreate | Self::RolesWrite)
    }

    /// The text of this permission.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The permission that a scope names.
    pub fn parse(scope: &str) -> Option<Self> {
        Self::from_str(scope).ok()
    }
}
