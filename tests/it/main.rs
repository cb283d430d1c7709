//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `api/` the HTTP API,
//! `campaigns/` the way from an HTTP request to delivered mail, `tenancy` the walls, `acceptance/` the whole from outside.

mod acceptance;
mod api;
mod campaigns;
mod queue;
mod tenancy;
