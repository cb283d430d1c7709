//! `/api/v1/campaigns`: drafts, the import of leads, and campaigns that are being sent.

mod drafts;
mod lead_columns;
mod leads;
mod settlement;
mod uploads;
