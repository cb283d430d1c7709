//! `/api/v1`.

pub mod api_clients;
pub mod api_keys;
pub mod auth;
pub mod campaign_leads;
pub mod campaigns;
pub mod companies;
pub mod jobs;
pub mod permissions;
pub mod suppressions;
pub mod unsubscribe;
pub mod usage;
pub mod users;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
