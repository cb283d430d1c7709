//! `/api/v1`.

pub mod campaign_leads;
pub mod campaigns;
pub mod jobs;
pub mod suppressions;
pub mod unsubscribe;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
