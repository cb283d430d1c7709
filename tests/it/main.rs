//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `tenancy` the walls.

mod queue;
mod tenancy;
