//! Harness and fakes for the tests that run against real services.
//!
//! Nothing here replaces PostgreSQL or Redis: `postgres` and `redis_server` start real ones that a test may kill.
//! Only the outside world is faked (`smtp_sink`, `http_sink`), because effects are counted there.
//!
//! Invariants: whatever a test starts ends when its handle is dropped, and every wait has a time-out chosen by the
//! caller. Operations return `anyhow::Result`; waits panic with what they waited for, since they are assertions.

mod child;
pub mod event_stream;
pub mod eventually;
pub mod free_port;
pub mod http_sink;
pub mod installation;
pub mod latency;
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
