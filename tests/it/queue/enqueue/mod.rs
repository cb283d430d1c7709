//! Enqueueing: what one request commits, and that no tenant's requests wait for another tenant's
//! backlog.

mod requests;
mod tenant_isolation;
