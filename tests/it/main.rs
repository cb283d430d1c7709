//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `api/` the HTTP API,
//! `operations/` running the processes, `campaigns/` the way from an HTTP request to delivered mail, `webhooks/` the way from a job's end to a receiver, `tenancy` the walls, `acceptance/` the whole from outside,
//! `hostile/` is a program of its own: it measures, so nothing else may run beside it.

mod acceptance;
mod api;
mod campaigns;
mod operations;
mod queue;
mod tenancy;
mod webhooks;
