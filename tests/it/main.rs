//! Tests against real PostgreSQL and Redis. The tree mirrors the parts under test: `queue/` the
//! engine, `api/` the HTTP API, `operations/` running the processes, `campaigns/` the path from an
//! HTTP request to delivered mail, `identity/` who acts and what they may do, `limits/` how many requests pass, `webhooks/` the path from a job's end to a receiver, `tenancy/`
//! the isolation of tenants, `acceptance/` everything from outside. `hostile/` is a separate
//! program: it measures, so nothing else may run at the same time.

mod acceptance;
mod api;
mod campaigns;
mod identity;
mod limits;
mod operations;
mod queue;
mod tenancy;
mod webhooks;
