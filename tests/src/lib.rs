//! Harness and fakes for the tests against real services.
//!
//! PostgreSQL and Redis are never replaced: `postgres` and `redis_server` start real servers that a
//! test may kill. Only the outside world is faked (`smtp_sink`, `http_sink`), because that is where
//! effects are counted.
//!
//! Invariants: everything that a test starts ends when its handle is dropped, and every wait has a
//! time-out chosen by the caller. Operations return `anyhow::Result`; waits are assertions, so they
//! panic and name the missing condition.

mod child;
pub mod event_stream;
pub mod eventually;
pub mod free_port;
pub mod http_sink;
pub mod installation;
pub mod latency;
mod openapi;
pub mod postgres;
pub mod process;
pub mod redis_server;
pub mod smtp_sink;
pub mod sql;
pub mod streamed_body;
pub mod system;
pub mod tcp_proxy;
pub mod test_app;
pub mod tls;
pub mod webhook_sink;
