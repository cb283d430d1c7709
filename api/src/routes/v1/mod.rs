//! `/api/v1`.

pub mod campaign_leads;
pub mod campaigns;
mod job_control;
pub mod job_events;
pub mod job_explain;
pub mod job_kinds;
pub mod job_relations;
pub mod job_submission;
pub mod jobs;
pub mod jobs_batch;
pub mod jobs_many;
pub mod suppressions;
pub mod unsubscribe;
pub mod webhook_deliveries;
pub mod webhook_endpoints;
