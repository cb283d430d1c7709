//! Tests against real PostgreSQL and Redis. The tree mirrors what is tested: `queue/` the engine, `api/` the HTTP API,
//! `acceptance/` the whole from outside.

mod acceptance;
mod api;
mod queue;
