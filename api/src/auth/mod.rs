//! Authentication and authorisation of requests.
//!
//! Invariant: a handler with a [`Permit`] argument runs only for a credential that has the
//! permission, and works for the credential's tenant. Handlers have no other source of a tenant.

mod key_ring;
mod permit;

pub use key_ring::KeyRing;
pub use permit::{
    CampaignsRead, CampaignsSend, CampaignsWrite, JobsControl, JobsCreate, JobsRead, Permit, WebhooksRead,
    WebhooksWrite, presented_key,
};
