//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `campaigns/` the way from
//! an HTTP request to delivered mail, `tenancy` the walls.

mod campaigns;
mod queue;
mod tenancy;
