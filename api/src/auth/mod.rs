//! Who is asking, and whether they may.
//!
//! Invariant: a handler that names a [`Permit`] runs only for a credential with that permission, and the tenant it works for is
//! the credential's. There is no other way to learn a tenant in a handler.

mod key_ring;
mod permit;

pub use key_ring::KeyRing;
pub use permit::{
    CampaignsRead, CampaignsSend, CampaignsWrite, JobsControl, JobsCreate, JobsRead, Permit, WebhooksRead,
    WebhooksWrite, presented_key,
};
