//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `campaigns/` the way from
//! an HTTP request to delivered mail.

mod campaigns;
mod queue;
