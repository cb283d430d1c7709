//! Tenants' rows: one file per noun, each function one statement or a few in the caller's
//! transaction.
//!
//! Invariant: functions take a [`crate::db::TenantTx`], so row level security applies to them. The
//! exceptions run before the tenant is known ([`credentials`]) or exists ([`tenants`]).

pub mod accounts;
pub mod api_clients;
pub mod api_keys;
pub mod campaign_pauses;
pub mod campaigns;
pub mod campaigns_under_way;
pub mod companies;
pub mod credentials;
pub mod idempotency;
pub mod lead_columns;
pub mod leads;
pub mod recipient_attempts;
pub mod recipients;
pub mod sessions;
pub mod suppressions;
pub mod tenants;
pub mod users;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
pub mod webhook_secrets;
