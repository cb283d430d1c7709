//! Authentication and authorisation of requests.
//!
//! Invariant: a handler with a [`Permit`] argument runs only for a credential that has the
//! permission, and works for the credential's tenant. Handlers have no other source of a tenant.
//! [`Authenticator`] turns what a client presented into a principal.

mod authenticator;
mod keyed_limit;
mod mail_limit;
mod permit;
mod presented;
mod sign_in_limit;

pub use authenticator::Authenticator;
pub use mail_limit::MailLimit;
pub use permit::{
    ApiClientsCreate, ApiClientsRead, ApiClientsRevoke, ApiKeysCreate, ApiKeysRead, ApiKeysRevoke, Authenticated,
    CampaignsRead, CampaignsSend, CampaignsWrite, CompaniesRead, CompaniesWrite, JobsControl, JobsCreate, JobsRead,
    Permit, QuotasRead, RolesRead, UsersRead, UsersWrite, WebhooksRead, WebhooksWrite,
};
pub use presented::Presented;
pub use sign_in_limit::SignInLimit;
